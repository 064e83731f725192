-- Places orders. The arguments: method and path, a name for the run, the prefix of the products' SKUs, how
-- many products there are, and the exponent of the Zipf distribution that they are drawn from; 0 draws them
-- uniformly. Requests are put together by hand, and answers are not read: wrk counts those of status 400 and
-- above itself.

local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

local head, tails, cumulative, sent = "", {}, {}, 0

function init(args)
  local target, run, prefix, products, skew = args[1], args[2], args[3], tonumber(args[4]), tonumber(args[5])
  math.randomseed(os.time() * 64 + number)
  head = target .. " HTTP/1.1\r\nHost: " .. wrk.host .. "\r\nContent-Type: application/json\r\n"
    .. "Idempotency-Key: " .. run .. "-" .. number .. "-"
  local total = 0
  for product = 1, products do
    local body = '{"sku":"' .. prefix .. "-" .. product .. '","quantity":1,"buyer":"wrk"}'
    tails[product] = "\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
    total = total + product ^ -skew
    cumulative[product] = total
  end
end

-- The first product whose cumulative weight is above a number drawn uniformly.
local function draw()
  local wanted, low, high = math.random() * cumulative[#cumulative], 1, #cumulative
  while low < high do
    local middle = math.floor((low + high) / 2)
    if cumulative[middle] > wanted then high = middle else low = middle + 1 end
  end
  return low
end

function request()
  sent = sent + 1
  return head .. sent .. tails[draw()]
end

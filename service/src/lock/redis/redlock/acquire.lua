-- One server's vote. KEYS: lock, readers, waiting, places, count.
-- ARGV: owner, mode, lease ms, place ms, ticket or 0, whose count it has to be, holder.
-- Returns {1, the count of tokens, or 0 where it is lost} when it votes for the claim, and
-- {0, how many stand before it, its place, the owner that has the lock} when it does not.
local lock, readers, waiting, places, counter = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local owner, mode, lease, ticket = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[5])

-- A server that was started anew, or came back with older data, does not know what was counted meanwhile. It
-- is brought up to date by whoever has the lock of a majority, and nobody else.
local function count(step)
    if redis.call('HGET', counter, 'of') ~= ARGV[6] then
        return 0
    end
    return redis.call('HINCRBY', counter, 'count', step)
end

local function take()
    local token = count(1)
    redis.call('HSET', lock, 'owner', owner, 'token', token, 'holder', ARGV[7])
    redis.call('PEXPIRE', lock, lease)
    return { 1, token, 0, false }
end

-- No holder and no waiter: the common case.
if mode == 'exclusive' and redis.call('EXISTS', lock, readers, waiting) == 0 then
    return take()
end

-- Its own already: an earlier reply was lost. The lease begins again, as its owner reckons.
if redis.call('HGET', lock, 'owner') == owner then
    redis.call('PEXPIRE', lock, lease)
    return { 1, tonumber(redis.call('HGET', lock, 'token')), 0, false }
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function read()
    redis.call('ZADD', readers, now + lease, owner)
    -- Never shorter than another reader's lease, which may be longer.
    if redis.call('PTTL', readers) < tonumber(lease) then
        redis.call('PEXPIRE', readers, lease)
    end
    return { 1, count(0), 0, false }
end

redis.call('ZREMRANGEBYSCORE', readers, '-inf', now)
if redis.call('ZSCORE', readers, owner) then
    return read()
end

-- A place is a number: one more than the last, until the claim has a ticket, which is the greatest that it
-- was given by a majority. So all servers come to have those who wait in the same order.
local place = ticket
if place == 0 then
    place = tonumber(redis.call('ZSCORE', waiting, owner) or '0')
end
if place == 0 then
    place = tonumber(redis.call('ZREVRANGE', waiting, 0, 0, 'WITHSCORES')[2] or '0') + 1
end
redis.call('ZADD', waiting, place, owner)

-- Who stands before it, and would keep it out? Those whose place has lapsed are cleared away.
local ahead = 0
for _, other in ipairs(redis.call('ZRANGE', waiting, 0, -1)) do
    if other == owner then
        break
    end
    local other_mode, until_ms = string.match(redis.call('HGET', places, other) or '', '^(%a+) (%d+)$')
    if not until_ms or tonumber(until_ms) <= now then
        redis.call('ZREM', waiting, other)
        redis.call('HDEL', places, other)
    elseif mode == 'exclusive' or other_mode == 'exclusive' then
        ahead = ahead + 1
    end
end
local held = redis.call('EXISTS', lock) == 1 or (mode == 'exclusive' and redis.call('EXISTS', readers) == 1)

if held or ahead > 0 then
    local place_ms = tonumber(ARGV[4])
    redis.call('HSET', places, owner, mode .. ' ' .. string.format('%d', now + place_ms))
    redis.call('PEXPIRE', waiting, place_ms * 2)
    redis.call('PEXPIRE', places, place_ms * 2)
    return { 0, ahead, place, redis.call('HGET', lock, 'owner') }
end

redis.call('ZREM', waiting, owner)
redis.call('HDEL', places, owner)
if mode == 'shared' then
    return read()
end
return take()

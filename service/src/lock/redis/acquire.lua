-- KEYS: lock, readers, waiting, places, token, note.
-- ARGV: owner, mode, lease ms, place ms, base of the tokens' generation, 1 if that is new, holder.
-- Returns {1, token, the last holder's note} when the lock is acquired, {0, how many stand before it} when
-- it is not, and {2} when the count of tokens is not of this generation: the server is new, or has lost its
-- data, or some of it, or others have begun another generation since.
local lock, readers, waiting, places, counter, note = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local owner, mode, lease, base = ARGV[1], ARGV[2], ARGV[3], ARGV[5]

local count = redis.call('GET', counter)
-- A generation is the upper half of a token, of 32 bits.
if count and tonumber(count) >= tonumber(base) + 4294967296 then
    return { 2, 0, false }
end
if not count or tonumber(count) < tonumber(base) then
    if ARGV[6] ~= '1' then
        return { 2, 0, false }
    end
    count = base
    redis.call('SET', counter, base)
end

local function take()
    local token = redis.call('INCR', counter)
    redis.call('HSET', lock, 'owner', owner, 'token', token, 'holder', ARGV[7])
    redis.call('PEXPIRE', lock, lease)
    return { 1, token, redis.call('GETDEL', note) }
end

-- No holder and no waiter: the common case.
if mode == 'exclusive' and redis.call('EXISTS', lock, readers, waiting) == 0 then
    return take()
end

-- Its own already: an earlier reply was lost. The lease begins again, as its owner reckons.
if redis.call('HGET', lock, 'owner') == owner then
    redis.call('PEXPIRE', lock, lease)
    return { 1, tonumber(redis.call('HGET', lock, 'token')), false }
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function read()
    redis.call('ZADD', readers, now + lease, owner)
    -- Never shorter than another reader's lease, which may be longer.
    if redis.call('PTTL', readers) < tonumber(lease) then
        redis.call('PEXPIRE', readers, lease)
    end
    return { 1, tonumber(count), false }
end

redis.call('ZREMRANGEBYSCORE', readers, '-inf', now)
if redis.call('ZSCORE', readers, owner) then
    return read()
end

-- Who stands before it, and would keep it out? Those whose place has lapsed are cleared away.
local ahead, placed = 0, false
for _, other in ipairs(redis.call('ZRANGE', waiting, 0, -1)) do
    if other == owner then
        placed = true
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
    local place = tonumber(ARGV[4])
    if not placed then
        redis.call('ZADD', waiting, time[1] * 1000000 + time[2], owner)
    end
    redis.call('HSET', places, owner, mode .. ' ' .. string.format('%d', now + place))
    redis.call('PEXPIRE', waiting, place * 2)
    redis.call('PEXPIRE', places, place * 2)
    return { 0, ahead, false }
end

if placed then
    redis.call('ZREM', waiting, owner)
    redis.call('HDEL', places, owner)
end
if mode == 'shared' then
    return read()
end
return take()

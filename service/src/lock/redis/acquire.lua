-- KEYS: lock, readers, waiting, places, token.  ARGV: owner, mode, lease ms, place ms, floor, holder.
-- Answers {"acquired", token} or {"waits", how many stand before it}. No token is less than the floor.
local lock, readers, waiting, places, counter = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local owner, mode, lease, place, floor = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Its own already: an earlier reply was lost.
if redis.call('HGET', lock, 'owner') == owner then
    return { 'acquired', tonumber(redis.call('HGET', lock, 'token')) }
end
if redis.call('ZSCORE', readers, owner) then
    return { 'acquired', tonumber(redis.call('GET', counter) or 0) }
end
-- No counter, or an older one: the server is new, or has lost its data, or some of it.
if tonumber(redis.call('GET', counter) or -1) < floor then
    redis.call('SET', counter, ARGV[5])
end

-- Who stands before it, and would keep it out? Those who have stopped looking are cleared away.
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
redis.call('ZREMRANGEBYSCORE', readers, '-inf', now)
local held = redis.call('EXISTS', lock) == 1 or (mode == 'exclusive' and redis.call('ZCARD', readers) > 0)

if held or ahead > 0 then
    if not placed then
        redis.call('ZADD', waiting, time[1] * 1000000 + time[2], owner)
    end
    redis.call('HSET', places, owner, mode .. ' ' .. string.format('%d', now + place))
    redis.call('PEXPIRE', waiting, place * 2)
    redis.call('PEXPIRE', places, place * 2)
    return { 'waits', ahead }
end

if placed then
    redis.call('ZREM', waiting, owner)
    redis.call('HDEL', places, owner)
end
if mode == 'shared' then
    redis.call('ZADD', readers, now + lease, owner)
    -- Never shorter than another reader's lease, which may be longer.
    if redis.call('PTTL', readers) < lease then
        redis.call('PEXPIRE', readers, lease)
    end
    return { 'acquired', tonumber(redis.call('GET', counter)) }
end
local token = redis.call('INCR', counter)
redis.call('HSET', lock, 'owner', owner, 'token', token, 'holder', ARGV[6])
redis.call('PEXPIRE', lock, lease)
return { 'acquired', token }

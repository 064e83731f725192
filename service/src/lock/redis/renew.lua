-- KEYS: lock for a writer, readers for a reader.  ARGV: owner, lease ms, mode.
-- Returns 1 when the lease is extended, 0 when it is not the owner's any more.
local owner, lease = ARGV[1], tonumber(ARGV[2])
if ARGV[3] == 'exclusive' then
    local lock = KEYS[1]
    if redis.call('HGET', lock, 'owner') == owner then
        return redis.call('PEXPIRE', lock, lease)
    end
    return 0
end
local readers = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local until_ms = redis.call('ZSCORE', readers, owner)
if until_ms and tonumber(until_ms) > now then
    redis.call('ZADD', readers, now + lease, owner)
    -- Never shorter than another reader's lease, which may be longer.
    if redis.call('PTTL', readers) < lease then
        redis.call('PEXPIRE', readers, lease)
    end
    return 1
end
return 0

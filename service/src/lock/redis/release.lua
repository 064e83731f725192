-- KEYS: lock, readers, waiting, places.  ARGV: owner, channel, what is locked.
-- Gives back whatever the owner has, and nothing of any other.
local lock, readers, waiting, places = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local owner = ARGV[1]
if redis.call('HGET', lock, 'owner') == owner then
    -- Whoever has the lock alone has no place among the readers or those who wait.
    redis.call('DEL', lock)
else
    redis.call('ZREM', readers, owner)
    redis.call('ZREM', waiting, owner)
    redis.call('HDEL', places, owner)
end
if redis.call('EXISTS', waiting) == 1 then
    redis.call('PUBLISH', ARGV[2], ARGV[3])
end
return redis.status_reply('OK')

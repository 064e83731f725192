-- KEYS: lock, readers, waiting, places, token.  ARGV: owner, channel.
-- Gives back whatever the owner has, and nothing of anybody else's.
local lock, readers, waiting, places = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local owner = ARGV[1]
if redis.call('HGET', lock, 'owner') == owner then
    redis.call('DEL', lock)
end
redis.call('ZREM', readers, owner)
redis.call('ZREM', waiting, owner)
redis.call('HDEL', places, owner)
if redis.call('EXISTS', waiting) == 1 then
    redis.call('PUBLISH', ARGV[2], '')
end
return redis.status_reply('OK')

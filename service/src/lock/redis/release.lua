-- KEYS: lock, readers, waiting, places, note.
-- ARGV: owner, channel, what is locked, a note or nothing, the note's time in ms.
-- Gives back whatever the owner has, and nothing of any other.
local lock, readers, waiting, places, note = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local owner = ARGV[1]
if redis.call('HGET', lock, 'owner') == owner then
    -- Whoever has the lock alone has no place among the readers or those who wait.
    redis.call('DEL', lock)
    if ARGV[4] ~= '' then
        redis.call('SET', note, ARGV[4], 'PX', ARGV[5])
    end
else
    redis.call('ZREM', readers, owner)
    redis.call('ZREM', waiting, owner)
    redis.call('HDEL', places, owner)
end
-- Whoever stands first tries again: one that wants it alone, or all who wait.
local first = redis.call('ZRANGE', waiting, 0, 0)[1]
if first then
    if string.sub(redis.call('HGET', places, first) or '', 1, 9) ~= 'exclusive' then
        first = ''
    end
    redis.call('PUBLISH', ARGV[2], first .. ' ' .. ARGV[3])
end
return redis.status_reply('OK')

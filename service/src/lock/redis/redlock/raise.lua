-- Brings the count of tokens up to that of a majority. KEYS: lock, count.
-- ARGV: owner, token, whose count it is from now on.
-- Returns 1 when the owner has the lock here and the server knows the token, 0 when it has it no more.
local lock, counter = KEYS[1], KEYS[2]
if redis.call('HGET', lock, 'owner') ~= ARGV[1] then
    return 0
end
local count = tonumber(redis.call('HGET', counter, 'count') or '0')
if redis.call('HGET', counter, 'of') ~= ARGV[3] or count < tonumber(ARGV[2]) then
    redis.call('HSET', counter, 'count', ARGV[2], 'of', ARGV[3])
end
redis.call('HSET', lock, 'token', ARGV[2])
return 1

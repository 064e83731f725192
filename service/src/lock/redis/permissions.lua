-- What the other scripts do, tried on a key of its own, of which nothing is left.
-- KEYS: that key.  ARGV: channel.
-- Returns the commands that the user may not run, and the channel, if that is not allowed.
local probe = KEYS[1]
local tried = {
    { 'DEL', probe }, { 'EXISTS', probe }, { 'GET', probe }, { 'SET', probe, '1', 'PX', '1000' },
    { 'INCR', probe }, { 'GETDEL', probe }, { 'HSET', probe, 'a', '1' }, { 'HGET', probe, 'a' },
    { 'HINCRBY', probe, 'a', '1' }, { 'HDEL', probe, 'a' }, { 'ZADD', probe, '1', 'a' },
    { 'ZSCORE', probe, 'a' }, { 'ZRANGE', probe, '0', '-1' }, { 'ZREVRANGE', probe, '0', '0' },
    { 'PEXPIRE', probe, '1000' }, { 'PTTL', probe }, { 'ZREMRANGEBYSCORE', probe, '-inf', '0' },
    { 'ZREM', probe, 'a' }, { 'DEL', probe },
    { 'TIME' }, { 'PUBLISH', ARGV[1], '- -' },
}
local denied = {}
for _, command in ipairs(tried) do
    local reply = redis.pcall(unpack(command))
    local why = type(reply) == 'table' and reply.err
    local is_denied = why
        and (string.find(why, 'NOPERM') or string.find(why, 'permission') or string.find(why, "can't "))
    if is_denied then
        denied[#denied + 1] = string.lower(command[1])
    end
end
return denied

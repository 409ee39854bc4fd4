-- owner, seconds, now, queue…: keep the leases; answers 1 when something was taken from the owner.
even_when_full()
local now = clock(ARGV[3])
local deadline = now + tonumber(ARGV[2])
redis.call('ZADD', P .. 'umbel.owners', 'XX', deadline, ARGV[1])
for n = 4, #ARGV do redis.call('ZADD', P .. 'umbel.consumers.' .. ARGV[n], 'XX', deadline, ARGV[1]) end
return redis.call('DEL', P .. 'umbel.lost.' .. ARGV[1])

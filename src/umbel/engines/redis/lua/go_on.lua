-- owner, lane, ticket, list, number, target, envelope, id of the result ('' for none), seconds, meta, final
-- End the lease `number` and lease what follows from it to the owner under the same number. Answers 'held'; 'queued' where
-- it has gone into its list; 'stale' where the lease was not held, and nothing is applied. A repeat is answered as the
-- first was: calls of a lane have growing tickets, and one that comes after a later one is over. The first write frees
-- memory, so that a server which is full lets the others follow.
local owner, lane, ticket, number, target = ARGV[1], ARGV[2], ARGV[3], ARGV[5], ARGV[6]
local settled, notes = P .. 'umbel.settled.' .. owner .. '.' .. lane, P .. 'umbel.notes.' .. owner
local before = redis.call('GET', settled)
if before then
  local last, said = string.match(before, '^(%d+) (%a+)$')
  if last == ticket then return said end
  if tonumber(last) > tonumber(ticket) then return 'stale' end
end

local answer = 'stale'
if redis.call('HDEL', held_key(owner, ARGV[4]), number) == 1 then
  if ARGV[8] ~= '' then put_record(ARGV[8], ARGV[9], ARGV[10], ARGV[11]) end
  if redis.call('EXISTS', has_large_key(owner)) == 1 then redis.call('DEL', large_key(number)) end
  if redis.call('LLEN', P .. target) > 0 or redis.call('EXISTS', R .. 'umbel.revoked') == 1 then
    answer = 'queued'
    redis.call('LPUSH', P .. target, ARGV[7])
    redis.call('HDEL', notes, number)
  else
    answer = 'held'
    redis.call('HSET', held_key(owner, target), number, ARGV[7])
    redis.call('HSET', notes, number, '0 ' .. ticket .. ' ')
  end
end
redis.call('SET', settled, ticket .. ' ' .. answer, 'EX', 86400)
return answer

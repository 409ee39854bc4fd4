-- owner, list, call, first number, how many: the owner holds the messages that were moved to the keys of these numbers
-- in the same transaction. One that comes late, its client having given it up, puts them back.
even_when_full()
local owner, list, first, last = ARGV[1], ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[4]) + tonumber(ARGV[5]) - 1
if taken_before('call', owner, ARGV[3], '0') then
  for number = last, first, -1 do redis.call('LMOVE', large_key(string.format('%.0f', number)), P .. list, 'LEFT', 'RIGHT') end
  return 0
end
local fields, count = {}, 0
for number = first, last do
  local text = string.format('%.0f', number)
  if redis.call('EXISTS', large_key(text)) == 1 then
    fields[2 * count + 1] = text
    fields[2 * count + 2] = ''
    count = count + 1
  end
end
if count > 0 then
  in_chunks('HSET', held_key(owner, list), fields)
  redis.call('SET', has_large_key(owner), '1')
  keep_call('call', owner, ARGV[3], first, count)
end
return count

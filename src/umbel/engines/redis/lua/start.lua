-- owner, (list, number, note)…: note that these are about to start; answers the numbers that are not held.
even_when_full()
local owner, stale, fields = ARGV[1], {}, {}
local list, key, last = nil, nil, 0
for n = 2, #ARGV, 3 do
  if ARGV[n] ~= list then
    list = ARGV[n]
    key = held_key(owner, list)
  end
  if redis.call('HEXISTS', key, ARGV[n + 1]) == 1 then
    fields[last + 1] = ARGV[n + 1]
    fields[last + 2] = ARGV[n + 2]
    last = last + 2
  else
    stale[#stale + 1] = ARGV[n + 1]
  end
end
if last > 0 then
  -- One long value makes Redis keep the notes in a table: it looks through what it packs from end to end.
  if last > 32 then fields[2] = fields[2] .. string.rep(' ', 64) end
  in_chunks('HSET', P .. 'umbel.notes.' .. owner, fields)
end
return stale

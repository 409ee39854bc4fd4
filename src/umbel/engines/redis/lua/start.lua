-- owner, (number, note)…: note that these are about to start; answers the numbers that are not held.
even_when_full()
local owner, stale, fields, numbers = ARGV[1], {}, {}, {}
for n = 2, #ARGV, 2 do numbers[#numbers + 1] = ARGV[n] end
local held = many('HMGET', P .. 'umbel.notes.' .. owner, numbers)
for place, number in ipairs(numbers) do
  if held[place] then
    fields[#fields + 1] = number
    fields[#fields + 1] = ARGV[2 * place + 1]
  else
    stale[#stale + 1] = number
  end
end
if #fields > 0 then in_chunks('HSET', P .. 'umbel.notes.' .. owner, fields) end
return stale

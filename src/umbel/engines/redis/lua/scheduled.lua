-- owner, now, seconds, limit, list…: hold messages of the lists that are not due yet, the next ones first.
-- Answers {list, first number, raw…}….
local owner, limit = ARGV[1], tonumber(ARGV[4])
local key, counts = P .. 'umbel.scheduled', P .. 'umbel.scheduled.count'
local of_list, lists = {}, {}
for n = 5, #ARGV do
  if redis.call('HEXISTS', counts, ARGV[n]) == 1 then of_list[ARGV[n]] = {} end
  lists[#lists + 1] = ARGV[n]
end
if next(of_list) == nil then return {} end
even_when_full()
local members, at = {}, 0
repeat
  local page = redis.call('ZRANGE', key, at, at + 999)
  for _, member in ipairs(page) do
    local cut = string.find(member, '\0', 1, true)
    local found = #members < limit and of_list[string.sub(member, 1, cut - 1)]
    if found then
      found[#found + 1] = string.sub(member, cut + 1)
      members[#members + 1] = member
    end
  end
  at = at + 1000
until #page < 1000 or #members >= limit
if #members == 0 then return {} end
redis.call('ZADD', P .. 'umbel.owners', clock(ARGV[2]) + tonumber(ARGV[3]), owner)
in_chunks('SADD', P .. 'umbel.lists.' .. owner, lists)
in_chunks('ZREM', key, members)
local entries, number = {}, redis.call('INCRBY', P .. 'umbel.tag', #members) - #members
for list, raws in pairs(of_list) do
  if #raws > 0 then
    local entry, fields = {list, string.format('%.0f', number + 1)}, {}
    for _, raw in ipairs(raws) do
      number = number + 1
      entry[#entry + 1] = raw
      fields[#fields + 1] = number
      fields[#fields + 1] = raw
    end
    in_chunks('HSET', held_key(owner, list), fields)
    if redis.call('HINCRBY', counts, list, -#raws) <= 0 then redis.call('HDEL', counts, list) end
    entries[#entries + 1] = entry
  end
end
return entries

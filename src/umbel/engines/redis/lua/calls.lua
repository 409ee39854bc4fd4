-- Which call of a kind was the last to take something for an owner: "<client>.<number> <first tag> <how many>".
local function keep_call(kind, owner, call, first, count)
  redis.call('SET', P .. 'umbel.' .. kind .. '.' .. owner, string.format('%s %.0f %d', call, first, count), 'EX', 86400)
end

-- What a call has taken already, if it is a repeat of one whose reply was lost: {list, number, raw, note} each. It is {}
-- for one that comes late, its client having given it up and gone on; nil when it is to be carried out.
local function taken_before(kind, owner, call, again)
  local last = redis.call('GET', P .. 'umbel.' .. kind .. '.' .. owner)
  if not last then return nil end
  local client, number, first, count = string.match(last, '^(.+)%.(%d+) (%d+) (%d+)$')
  local own, place = string.match(call, '^(.+)%.(%d+)$')
  if client ~= own or tonumber(place) > tonumber(number) then return nil end
  if place ~= number or again ~= '1' or count == '0' then return {} end
  local tags, found = {}, {}
  for tag = tonumber(first), tonumber(first) + tonumber(count) - 1 do tags[#tags + 1] = string.format('%.0f', tag) end
  local notes = redis.call('HMGET', P .. 'umbel.notes.' .. owner, unpack(tags))
  for _, list in ipairs(redis.call('SMEMBERS', P .. 'umbel.lists.' .. owner)) do
    for index, raw in ipairs(redis.call('HMGET', held_key(owner, list), unpack(tags))) do
      if raw then found[#found + 1] = {list, tags[index], envelope_of(tags[index], raw), notes[index] or ''} end
    end
  end
  table.sort(found, function(a, b) return tonumber(a[2]) < tonumber(b[2]) end)
  return found
end

-- Messages taken in from another broker: hash `umbel.adopted`, for as long as they are held: name → "<number> <token>
-- <list>\0<owner>". Their envelopes keep the name near their end, where no other message has one.
local function adopted_entry(entry)
  local number, token, list, owner = string.match(entry or '', '^(%d+) (%d+) (.-)%z(.*)$')
  return number, tonumber(token), list, owner
end

local function note_adopted(name, number, token, list, owner)
  redis.call('HSET', P .. 'umbel.adopted', name, string.format('%s %d ', number, token) .. list .. '\0' .. owner)
end

-- A message is taken over: nothing to do unless it was adopted.
local function follow_adopted(raw, former, number, list, owner)
  local name = string.match(string.sub(raw, -180), '"adopted":"(%x+)"},"')
  if not name then return end
  local known, token = adopted_entry(redis.call('HGET', P .. 'umbel.adopted', name))
  if known == former then note_adopted(name, number, token + 1, list, owner) end
end

-- (id, seconds, meta, final)…: store states in order; answers the places of those that met a terminal state.
local refused = {}
for n = 1, #ARGV, 4 do
  if not put_record(ARGV[n], ARGV[n + 1], ARGV[n + 2], ARGV[n + 3]) then refused[#refused + 1] = (n - 1) / 4 end
end
return refused

-- group…: nobody is told again that these are complete.
for _, name in ipairs(ARGV) do confirm_group(name) end
return #ARGV

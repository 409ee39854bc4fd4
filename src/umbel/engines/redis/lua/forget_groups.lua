-- expires, group…: delete groups, which stay closed until then.
for n = 2, #ARGV do forget_group(ARGV[n], ARGV[1]) end
return #ARGV - 1

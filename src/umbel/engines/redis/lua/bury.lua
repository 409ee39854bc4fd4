-- letter: put a message that was never leased among the dead.
return bury(ARGV[1])

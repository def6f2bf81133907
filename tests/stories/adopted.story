# R26: an engine of an earlier router lives. It is proved, then it serves; the next instance gets a new number.
# An engine of a model that is not configured any more is stopped.
device gpu0 40G
model alpha size=10G
model beta size=10G

    0.00 > Adopted alpha#7 alpha [gpu0]
         < Prove alpha#7
    0.00 > Adopted old#3 old [gpu0]
         < Stop old#3
    0.50 > Arrived 1 alpha
         < Tell alpha
    1.00 > Proved alpha#7
         < Grant 1 alpha#7
    2.00 > Gone old#3
    3.00 > Arrived 2 beta
         < Check beta#8 beta [gpu0]
         < Tell beta

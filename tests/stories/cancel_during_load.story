# R16: a load that nobody waits for any more stops, unless it is more than half done; then it goes on, and
# the model stays long enough that a retry meets it warm.
device gpu0 16G
model alpha load_s=40 idle_s=30
model beta load_s=40

    0.00 > Arrived 1 alpha
         < Check alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Checked alpha#1
         < Start alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Started alpha#1
         < Prove alpha#1
         < Tell alpha
    5.00 > LoadProgressed alpha#1 "loading weights" percent=12 left_s=35
         < Tell alpha
    6.00 > Withdrawn 1
         < Stop alpha#1
    9.00 > Gone alpha#1
   10.00 > Arrived 2 alpha
         < Check alpha#2 alpha [gpu0]
         < Tell alpha
   10.00 > Checked alpha#2
         < Start alpha#2 alpha [gpu0]
         < Tell alpha
   10.00 > Started alpha#2
         < Prove alpha#2
         < Tell alpha
   35.00 > LoadProgressed alpha#2 "loading weights" percent=62 left_s=15
         < Tell alpha
   36.00 > Withdrawn 2
   50.00 > Proved alpha#2
   60.00 > Arrived 3 alpha
         < Grant 3 alpha#2
   61.00 > Released 3

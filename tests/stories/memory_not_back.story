# R25: alpha is gone, but the memory of its device is not back. That device is not used: beta goes to the other
# one, gamma, which needs both, waits until the memory is there.
device gpu0 16G
device gpu1 16G
model alpha devices=gpu0 size=10G
model beta devices=1 size=10G
model gamma devices=2 size=10G

    0.00 > Arrived 1 alpha
         < Check alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Checked alpha#1
         < Start alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Started alpha#1
         < Prove alpha#1
         < Tell alpha
   10.00 > Proved alpha#1
         < Grant 1 alpha#1
   11.00 > Released 1
   12.00 > UnloadAsked alpha
         < Stop alpha#1
   14.00 > Gone alpha#1 dirty=[gpu0]
   15.00 > Arrived 2 beta
         < Check beta#2 beta [gpu1]
         < Tell beta
   16.00 > Arrived 3 gamma
         < Tell gamma
   17.00 > Withdrawn 2
         < Tell gamma
   18.00 > Cleaned gpu0
         < Check gamma#3 gamma [gpu0,gpu1]

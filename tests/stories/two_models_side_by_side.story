# R13: sizes are known, so two models live together, each on the device with the least room that suffices. The
# third needs the place of one: the one that has been idle longer for what it costs leaves, the other serves on.
device gpu0 16G
device gpu1 16G
model alpha devices=1 size=10G load_s=10
model beta devices=1 size=12G load_s=10
model gamma devices=1 size=9G load_s=10

    0.00 > Arrived 1 alpha
         < Check alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Checked alpha#1
         < Start alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Started alpha#1
         < Prove alpha#1
         < Tell alpha
    5.00 > Arrived 2 beta
         < Check beta#2 beta [gpu1]
         < Tell beta
    5.00 > Checked beta#2
         < Start beta#2 beta [gpu1]
         < Tell beta
    5.00 > Started beta#2
         < Prove beta#2
         < Tell beta
   10.00 > Proved alpha#1
         < Grant 1 alpha#1
   15.00 > Proved beta#2
         < Grant 2 beta#2
   16.00 > Released 1
   20.00 > Released 2
   30.00 > Arrived 3 beta
         < Grant 3 beta#2
   31.00 > Arrived 4 gamma
         < Check gamma#3 gamma [gpu0]
         < Tell gamma
   31.00 > Checked gamma#3
         < Stop alpha#1
         < Tell gamma
   33.00 > Gone alpha#1
         < Start gamma#3 gamma [gpu0]
         < Tell gamma
   33.00 > Started gamma#3
         < Prove gamma#3
         < Tell gamma
   43.00 > Proved gamma#3
         < Grant 4 gamma#3

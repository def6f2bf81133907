# R5: a reload is a diff. Alpha did not change and goes on answering; beta changed, finishes what it does and
# starts anew when it is wanted; gamma is gone, and who waits for it is told.
device gpu0 40G
model alpha size=10G
model beta size=10G concurrency=1
model gamma size=10G

    0.00 > Arrived 1 alpha
         < Check alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Checked alpha#1
         < Start alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Started alpha#1
         < Prove alpha#1
         < Tell alpha
    5.00 > Proved alpha#1
         < Grant 1 alpha#1
    5.00 > Arrived 2 beta
         < Check beta#2 beta [gpu0]
         < Tell beta
    5.00 > Checked beta#2
         < Start beta#2 beta [gpu0]
         < Tell beta
    5.00 > Started beta#2
         < Prove beta#2
         < Tell beta
   10.00 > Proved beta#2
         < Grant 2 beta#2
   10.00 > Arrived 3 beta
         < Tell beta
   11.00 ! model beta revision=2
         < Tell beta
   12.00 > Arrived 4 gamma
         < Check gamma#3 gamma [gpu0]
         < Tell gamma
   13.00 ! remove gamma
         < Refuse 4 {"reason": "unknown_model", "model": "gamma"}
   13.50 > Checked gamma#3  # too late, its plan was dropped
   14.00 > Released 1
   15.00 > Released 2
         < Stop beta#2
         < Tell beta
   16.00 > Gone beta#2
         < Check beta#4 beta [gpu0]
         < Tell beta
   16.00 > Checked beta#4
         < Start beta#4 beta [gpu0]
         < Tell beta
   16.00 > Started beta#4
         < Prove beta#4
         < Tell beta
   20.00 > Proved beta#4
         < Grant 3 beta#4

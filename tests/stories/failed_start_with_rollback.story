# R14, R15: beta's start fails after alpha left for it. Beta rests before it is tried again; meanwhile alpha
# comes back for the one who waits for it.
device gpu0 16G
model alpha load_s=10
model beta load_s=10

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
   20.00 > Arrived 2 beta
         < Check beta#2 beta [gpu0]
         < Tell beta
   20.10 > Checked beta#2
         < Stop alpha#1
         < Tell beta
   21.00 > Gone alpha#1
         < Start beta#2 beta [gpu0]
         < Tell beta
   21.00 > Started beta#2
         < Prove beta#2
         < Tell beta
   22.00 > Arrived 3 alpha
         < Tell alpha
   23.00 > StartFailed beta#2 {"kind":"crashed","cause":"it ended with exit code 1"}
         < Stop beta#2
         < Check alpha#3 alpha [gpu0]
         < Tell alpha
         < Tell beta
   23.50 > Gone beta#2
         < Tell alpha
         < Tell beta
   23.60 > Checked alpha#3
         < Start alpha#3 alpha [gpu0]
         < Tell alpha
   23.60 > Started alpha#3
         < Prove alpha#3
         < Tell alpha
   23.60 ? 2
         = beta queued, place 1, waited 3.6 s, after alpha, waiting before the next try, no estimate
   25.00 .
         < Tell beta
   33.60 > Proved alpha#3
         < Grant 3 alpha#3
         < Tell beta
   34.00 > Released 3
         < Check beta#4 beta [gpu0]
   34.10 > Checked beta#4
         < Stop alpha#3
         < Tell beta
   36.00 > Gone alpha#3
         < Start beta#4 beta [gpu0]
         < Tell beta
   36.00 > Started beta#4
         < Prove beta#4
         < Tell beta
   46.00 > Proved beta#4
         < Grant 2 beta#4
   47.00 > Released 2

# R10: nobody is cut to make room. Beta is asked for while alpha answers; alpha finishes, leaves, and only
# when its memory is back does beta start. Those who wait are told what they wait for.
device gpu0 16G
model alpha load_s=40
model beta load_s=20
setting quantum_factor=1

    0.00 > Arrived 1 alpha
         < Check alpha#1 alpha [gpu0]
         < Tell alpha
    0.10 > Checked alpha#1
         < Start alpha#1 alpha [gpu0]
         < Tell alpha
    0.20 > Started alpha#1
         < Prove alpha#1
         < Tell alpha
   10.00 > LoadProgressed alpha#1 "loading weights" percent=25 left_s=30
         < Tell alpha
   10.00 ? 1
         = alpha loading, place 1, waited 10 s, loading weights, 25 %, 30 s left
   40.00 > Proved alpha#1
         < Grant 1 alpha#1
   41.00 > Arrived 2 beta
         < Tell beta
   41.00 ? 2
         = beta queued, place 1, waited 0 s, alpha makes room, no estimate
   61.00 .
         < Check beta#2 beta [gpu0]
   70.00 > Checked beta#2
         < Tell beta
   75.00 > Progressed 1
   75.00 ? 2
         = beta draining, place 1, waited 34 s, alpha makes room, no estimate
   80.00 > Released 1
         < Stop alpha#1
         < Tell beta
   80.00 ? 2
         = beta stopping, place 1, waited 39 s, alpha makes room, 20 s left
   83.00 > Gone alpha#1
         < Start beta#2 beta [gpu0]
         < Tell beta
   83.10 > Started beta#2
         < Prove beta#2
         < Tell beta
   90.00 > LoadProgressed beta#2 "loading weights" percent=50 left_s=10
         < Tell beta
   92.00 ? 2
         = beta loading, place 1, waited 51 s, loading weights, 50 %, 8 s left
  103.00 > Proved beta#2
         < Grant 2 beta#2
  105.00 > Released 2

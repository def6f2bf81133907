# R18: an important request goes before others of its model, and its model before others; it does not wait for
# a whole quantum, only for the shortest.
device gpu0 16G
model alpha load_s=60 concurrency=1
model beta load_s=60 
model gamma load_s=60 priority=5

    0.00 > Arrived 1 alpha
         < Check alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Checked alpha#1
         < Start alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Started alpha#1
         < Prove alpha#1
         < Tell alpha
   60.00 > Proved alpha#1
         < Grant 1 alpha#1
   61.00 > Arrived 2 alpha
         < Tell alpha
   61.00 > Arrived 3 alpha priority=1
   62.00 > Released 1
         < Grant 3 alpha#1
   70.00 > Arrived 4 beta
         < Tell beta
   71.00 > Arrived 5 gamma
         < Tell beta
         < Tell gamma
   76.00 .
         < Check gamma#2 gamma [gpu0]
         < Tell beta
   76.50 > Checked gamma#2
         < Tell alpha
         < Tell gamma
   77.00 > Released 3
         < Stop alpha#1
         < Tell alpha
         < Tell gamma

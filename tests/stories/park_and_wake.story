# R19: a model that can be parked is put to sleep instead of stopped, if what it takes asleep fits beside the
# newcomer; waking is preferred to starting. What sleeps is stopped when even that room is needed.
device gpu0 16G
model alpha size=12G parked=1G parkable=true load_s=50 wake_s=3
model beta size=12G parked=1G parkable=true load_s=50 wake_s=3
model gamma size=16G load_s=50

    0.00 > Arrived 1 alpha
         < Check alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Checked alpha#1
         < Start alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Started alpha#1
         < Prove alpha#1
         < Tell alpha
   50.00 > Proved alpha#1
         < Grant 1 alpha#1
   51.00 > Released 1
   60.00 > Arrived 2 beta
         < Check beta#2 beta [gpu0]
         < Tell beta
   60.00 > Checked beta#2
         < Park alpha#1
         < Tell beta
   62.00 > Parked alpha#1
         < Start beta#2 beta [gpu0]
         < Tell beta
   62.00 > Started beta#2
         < Prove beta#2
         < Tell beta
  112.00 > Proved beta#2
         < Grant 2 beta#2
  113.00 > Released 2
  120.00 > Arrived 3 alpha
         < Park beta#2
         < Tell alpha
  122.00 > Parked beta#2
         < Wake alpha#1
         < Tell alpha
  123.00 ? 3
         = alpha waking, place 1, waited 3 s, 2 s left
  125.00 > Woken alpha#1
         < Grant 3 alpha#1
  126.00 > Released 3
  130.00 > Arrived 4 gamma
         < Check gamma#3 gamma [gpu0]
         < Tell gamma
  130.00 > Checked gamma#3
         < Stop beta#2
         < Stop alpha#1
         < Tell gamma
  131.00 > Gone beta#2
  132.00 > Gone alpha#1
         < Start gamma#3 gamma [gpu0]
         < Tell gamma
  132.00 > Started gamma#3
         < Prove gamma#3
         < Tell gamma
  182.00 > Proved gamma#3
         < Grant 4 gamma#3

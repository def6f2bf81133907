# The router is restarted: engines live on for the next one, loads that are not done do not.
device gpu0 40G
model alpha size=10G
model beta size=10G

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
    6.00 > Arrived 2 beta
         < Check beta#2 beta [gpu0]
         < Tell beta
    6.00 > Checked beta#2
         < Start beta#2 beta [gpu0]
         < Tell beta
    6.00 > Started beta#2
         < Prove beta#2
         < Tell beta
    7.00 > ShutdownAsked keep_engines=true
         < Refuse 2 {"reason": "shutting_down", "model": "beta"}
         < Stop beta#2
    8.00 > Gone beta#2
    9.00 > Released 1
         < Finish

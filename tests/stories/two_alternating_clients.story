# R12: two sequential callers, one model each. As soon as it is known that a caller comes back, the model waits
# for its next request, and keeps its place for a quantum: many answers for each switch.
device gpu0 16G
model alpha load_s=10
model beta load_s=10
setting quantum_factor=1

    0.00 > Arrived 1 alpha caller=ann
         < Check alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Arrived 2 beta caller=bob
         < Tell beta
    0.00 > Checked alpha#1
         < Start alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Started alpha#1
         < Prove alpha#1
         < Tell alpha
   10.00 > Proved alpha#1
         < Grant 1 alpha#1
         < Tell beta
   11.00 > Released 1
         < Check beta#2 beta [gpu0]
   11.50 > Arrived 3 alpha caller=ann  # she comes back at once: she is served, and expected from now on
         < Grant 3 alpha#1
   11.60 > Checked beta#2
   12.00 > Released 3
   13.00 > Arrived 4 alpha caller=ann
         < Grant 4 alpha#1
   14.00 > Released 4
   14.50 > Arrived 5 alpha caller=ann
         < Grant 5 alpha#1
   19.00 > Released 5
   19.50 > Arrived 6 alpha caller=ann
         < Grant 6 alpha#1
   20.00 .
         < Tell beta
   21.00 > Arrived 7 alpha caller=ann  # the quantum is over: this one waits for the next turn
         < Tell alpha
   22.00 > Released 6
         < Stop alpha#1
         < Tell alpha
         < Tell beta
   23.00 > Gone alpha#1
         < Start beta#2 beta [gpu0]
         < Tell alpha
         < Tell beta
   23.00 > Started beta#2
         < Prove beta#2
         < Tell beta
   33.00 > Proved beta#2
         < Grant 2 beta#2
         < Tell alpha
   34.00 > Released 2
         < Check alpha#3 alpha [gpu0]
   34.10 > Checked alpha#3
         < Stop beta#2
         < Tell alpha
   34.20 > Arrived 8 beta caller=bob  # but now beta is on its way out, and he waits for his next turn
         < Tell beta
   35.00 > Gone beta#2
         < Start alpha#3 alpha [gpu0]
         < Tell alpha
         < Tell beta
   35.00 > Started alpha#3
         < Prove alpha#3
         < Tell alpha
   45.00 > Proved alpha#3
         < Grant 7 alpha#3
         < Tell beta
   46.00 > Released 7

# R15: many clients, one start. It fails three times, with growing pauses; then all are told when to come back.
device gpu0 16G
model alpha

    0.00 > Arrived 1 alpha
         < Check alpha#1 alpha [gpu0]
         < Tell alpha
    0.10 > Arrived 2 alpha
    0.20 > Arrived 3 alpha
    0.30 > Checked alpha#1
         < Start alpha#1 alpha [gpu0]
         < Tell alpha
    0.40 > StartFailed alpha#1 {"kind":"crashed","cause":"it ended with exit code 1"}
         < Stop alpha#1
         < Tell alpha
    0.50 > Gone alpha#1
         < Tell alpha
    0.60 > Arrived 4 alpha
    2.40 .
         < Check alpha#2 alpha [gpu0]
         < Tell alpha
    3.00 > Checked alpha#2
         < Start alpha#2 alpha [gpu0]
         < Tell alpha
    3.00 > Started alpha#2
         < Prove alpha#2
         < Tell alpha
    4.00 > Exited alpha#2 {"kind":"crashed","cause":"it was killed by signal 9"}
         < Stop alpha#2 polite=false
         < Tell alpha
    4.50 > Gone alpha#2
         < Tell alpha
    8.00 .
         < Check alpha#3 alpha [gpu0]
         < Tell alpha
    9.00 > Checked alpha#3
         < Start alpha#3 alpha [gpu0]
         < Tell alpha
    9.00 > StartFailed alpha#3 {"kind":"port_in_use","cause":"port 30000 is in use"}
         < Stop alpha#3
         < Refuse 1 {"reason": "load_failed", "model": "alpha", "retry_after_s": 8.0, "failure": {"kind": "port_in_use", "cause": "port 30000 is in use"}}
         < Refuse 2 {"reason": "load_failed", "model": "alpha", "retry_after_s": 8.0, "failure": {"kind": "port_in_use", "cause": "port 30000 is in use"}}
         < Refuse 3 {"reason": "load_failed", "model": "alpha", "retry_after_s": 8.0, "failure": {"kind": "port_in_use", "cause": "port 30000 is in use"}}
         < Refuse 4 {"reason": "load_failed", "model": "alpha", "retry_after_s": 8.0, "failure": {"kind": "port_in_use", "cause": "port 30000 is in use"}}
    9.10 > Gone alpha#3
   10.00 > Arrived 5 alpha
         < Refuse 5 {"reason": "load_failed", "model": "alpha", "retry_after_s": 7.0, "failure": {"kind": "port_in_use", "cause": "port 30000 is in use"}}
   20.00 > Arrived 6 alpha
         < Check alpha#4 alpha [gpu0]
         < Tell alpha

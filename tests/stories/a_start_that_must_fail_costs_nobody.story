# R14: what can be checked is checked before anybody is stopped. Beta's file is missing: alpha stays.
device gpu0 16G
model alpha
model beta

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
   20.00 > Arrived 3 beta
   20.10 > Checked beta#2 failure={"kind":"missing_file","cause":"cannot find /models/beta.gguf"}
         < Refuse 2 {"reason": "load_failed", "model": "beta", "failure": {"kind": "missing_file", "cause": "cannot find /models/beta.gguf"}}
         < Refuse 3 {"reason": "load_failed", "model": "beta", "failure": {"kind": "missing_file", "cause": "cannot find /models/beta.gguf"}}
   21.00 > Arrived 4 beta  # answered from memory
         < Refuse 4 {"reason": "load_failed", "model": "beta", "failure": {"kind": "missing_file", "cause": "cannot find /models/beta.gguf"}}
   22.00 > ForgiveAsked beta
   23.00 > Arrived 5 beta  # tried again
         < Check beta#3 beta [gpu0]
         < Tell beta
   23.10 > Checked beta#3 failure={"kind":"missing_file","cause":"cannot find /models/beta.gguf"}
         < Refuse 5 {"reason": "load_failed", "model": "beta", "failure": {"kind": "missing_file", "cause": "cannot find /models/beta.gguf"}}
   24.00 > Arrived 6 alpha
         < Grant 6 alpha#1

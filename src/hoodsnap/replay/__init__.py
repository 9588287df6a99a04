"""Real clients meet the recording: stand-ins for the servers of one recorded host.

One rule: recorded bytes, or a refusal that names what was not recorded. No default, no invented
value, no write.
"""

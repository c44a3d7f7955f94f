"""What belongs to Label Studio: its address and clock, the token, the release, and what it blocks.

Nothing is changed there.
"""

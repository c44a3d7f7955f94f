"""What belongs to one project: what Label Studio holds of it, against what `nextmask connect` sets up.

`facts` asks Label Studio and the state once; all other modules but `images` are functions of the answers.
"""

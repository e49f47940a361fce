"""Many runs in one folder: what they are, who carries them out, and what has become of them."""

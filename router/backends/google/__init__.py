"""What the backends on Google's services share: channels, time-outs, retries and the translation of errors."""

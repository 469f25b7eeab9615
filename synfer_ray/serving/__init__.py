"""The served calibrator: the vote of the `calibrate` job behind the Open Inference Protocol, on Ray Serve."""

"""HTTP in front of the funnel: one thread ranks, fed by a bounded queue; needs `adstool[serve]`. No torch."""

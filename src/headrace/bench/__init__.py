"""Measuring, netperf's way: throughput, CPU utilisation, service demand."""

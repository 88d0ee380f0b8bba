"""Kafka settings in; clients, topics, a producer and a broker for one machine out."""

"""The transport to a topic of Kafka, by confluent-kafka, which the extra `kafka` installs."""

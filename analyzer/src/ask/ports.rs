//! Services by the names that people use, with the ports that they listen on by default.

/// (names, ports); the first name is the one that is told.
const SERVICES: &[(&[&str], &[u16])] = &[
    (&["dns", "resolver", "nameserver", "coredns", "nslookup"], &[53]),
    (&["http", "web"], &[80, 8080]),
    (&["https", "tls"], &[443, 8443]),
    (&["postgres", "postgresql", "psql", "pgbouncer"], &[5432, 6432]),
    (&["mysql", "mariadb"], &[3306]),
    (&["redis", "valkey"], &[6379]),
    (&["mongodb", "mongo"], &[27017]),
    (&["kafka"], &[9092]),
    (&["zookeeper"], &[2181]),
    (&["rabbitmq", "amqp"], &[5672]),
    (&["nats"], &[4222]),
    (&["elasticsearch", "opensearch"], &[9200]),
    (&["cassandra"], &[9042]),
    (&["memcached", "memcache"], &[11211]),
    (&["etcd"], &[2379, 2380]),
    (&["apiserver", "kube-apiserver", "kubernetes", "api-server"], &[6443, 443]),
    (&["kubelet"], &[10250]),
    (&["prometheus"], &[9090]),
    (&["vault"], &[8200]),
    (&["consul"], &[8500]),
    (&["minio", "s3"], &[9000]),
    (&["ldap"], &[389, 636]),
    (&["smtp", "mail"], &[25, 587]),
    (&["ntp", "chrony"], &[123]),
    (&["ssh", "sshd"], &[22]),
    (&["mssql", "sqlserver"], &[1433]),
    (&["oracle"], &[1521]),
    (&["clickhouse"], &[8123, 9000]),
    (&["mqtt", "mosquitto"], &[1883]),
    (&["syslog"], &[514]),
];

/// The service of this name, and its ports.
pub(super) fn of(word: &str) -> Option<(&'static str, impl Iterator<Item = u16>)> {
    let (names, ports) = SERVICES.iter().find(|(names, _)| names.contains(&word))?;
    Some((names.first()?, ports.iter().copied()))
}

/// Whether a service of the table listens there.
pub(super) fn is_known(port: u16) -> bool {
    SERVICES.iter().any(|(_, ports)| ports.contains(&port))
}

//! A real nginx that logs as Nginx Proxy Manager does.

use crate::world::World;

/// NPM's own `log_format` lines (its `log-proxy.conf`), word for word: what the filters must be able to read; and one of an
/// application's own.
pub(crate) const FORMATS: &str = r#"
log_format proxy '[$time_local] $upstream_cache_status $upstream_status $status - $request_method $scheme $host "$request_uri" [Client $remote_addr] [Length $body_bytes_sent] [Gzip $gzip_ratio] [Sent-to $server] "$http_user_agent" "$http_referer"';
log_format standard '[$time_local] $status - $request_method $scheme $host "$request_uri" [Client $remote_addr] [Length $body_bytes_sent] [Gzip $gzip_ratio] "$http_user_agent" "$http_referer"';
log_format app escape=json '{"ts":"$time_iso8601","remote":"$remote_addr","xff":"$http_x_forwarded_for","status":$status}';
"#;

/// Starts nginx on the server of `world`: port 80 answers `/` with 200 and everything else with 404, by way of an
/// upstream as NPM's hosts do, and logs to `proxy-host-1_access.log` in the world's directory, and as an application behind
/// a proxy might to `app.json`.
pub(crate) fn start(world: &mut World) {
    let dir = world.dir().to_str().unwrap().to_owned();
    let config = format!(
        "pid {dir}/nginx.pid;
error_log {dir}/nginx_error.log;
worker_processes 1;
user root;
events {{ worker_connections 256; }}
http {{
{FORMATS}
client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
server {{
    listen 80; listen [::]:80;
    set $server \"127.0.0.1\";
    access_log {dir}/proxy-host-1_access.log proxy;
    access_log {dir}/app.json app;
    location / {{ proxy_pass http://127.0.0.1:8080; }}
}}
server {{
    listen 127.0.0.1:8080;
    access_log off;
    location = / {{ return 200 'hello'; }}
    location / {{ return 404; }}
}}
}}
"
    );
    let config = world.write("nginx.conf", &config);
    world.start("nginx", &["-c", config.to_str().unwrap(), "-g", "daemon off;"], "nginx.out");
    let up = crate::world::eventually(std::time::Duration::from_secs(10), || {
        world.visit(crate::world::INNOCENT4, "/") == Some(200)
    });
    assert!(up, "nginx does not answer: {}", std::fs::read_to_string(world.dir().join("nginx.out")).unwrap());
}

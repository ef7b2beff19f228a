"""Writes ray_verdicts.json: what Ray Serve 2.60 says to a list of documents.

    python3 -m venv ray && ray/bin/pip install "ray[serve]==2.60.0"
    ray/bin/python ray_verdicts.py > ray_verdicts.json

A document is a YAML text. It is read as `serve deploy` reads it (PyYAML, then the schema
class), and the verdict is whether that accepts it, and what becomes of a few fields.
"""

import json
import logging
import math
import sys
import warnings

import yaml

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

from ray.serve.schema import ServeDeploySchema  # noqa: E402


def app(text):
    return "applications:\n- import_path: a:b\n" + "".join(
        f"  {line}\n" for line in text.splitlines()
    )


def deployment(text):
    return app("deployments:\n- name: D\n" + "".join(f"  {line}\n" for line in text.splitlines()))


def top(text):
    return text + "\napplications: []\n"


DOCUMENTS = [
    # Top level.
    "applications: []",
    "import_path: a:b",
    "{}",
    "[]",
    "applications: null",
    "applications: {}",
    "applications: x",
    top("something_new: 1"),
    top("proxy_location: HeadOnly"),
    top("proxy_location: NoServer"),
    top("proxy_location: headonly"),
    top("proxy_location: null"),
    top("target_capacity: 50"),
    top("target_capacity: '50'"),
    top("target_capacity: 100.5"),
    top("target_capacity: -1"),
    top("target_capacity: null"),
    top("target_capacity: true"),
    # Coercion.
    top("http_options: {port: '8001'}"),
    top("http_options: {port: ' 8001 '}"),
    top("http_options: {port: '8001.0'}"),
    top("http_options: {port: '8_001'}"),
    top("http_options: {port: '8001.5'}"),
    top("http_options: {port: 8001.0}"),
    top("http_options: {port: 8001.5}"),
    top("http_options: {port: true}"),
    top("http_options: {port: ''}"),
    top("http_options: {port: '+8001'}"),
    top("http_options: {port: '0x10'}"),
    top("http_options: {port: 0x1F41}"),
    top("http_options: {port: null}"),
    top("http_options: null"),
    top("http_options: {host: 5}"),
    top("http_options: {new_option: 5}"),
    top("http_options: {request_timeout_s: '1.5'}"),
    top("http_options: {request_timeout_s: 1e3}"),
    top("http_options: {request_timeout_s: '.5'}"),
    top("http_options: {request_timeout_s: '5.'}"),
    top("http_options: {request_timeout_s: ' 1_0.5 '}"),
    top("http_options: {request_timeout_s: 1:30}"),
    top("http_options: {request_timeout_s: -1}"),
    top("http_options: {request_timeout_s: soon}"),
    top("http_options: {request_timeout_s: true}"),
    top("http_options: {keep_alive_timeout_s: 1.5}"),
    top("http_options: {ssl_keyfile: k}"),
    top("http_options: {ssl_certfile: c}"),
    top("http_options: {ssl_keyfile: k, ssl_certfile: c}"),
    top("http_options: {ssl_keyfile: '', ssl_certfile: ''}"),
    top("grpc_options: {port: 9001, grpc_servicer_functions: [a.b], enable_reflection: no}"),
    top("grpc_options: {enable_reflection: 'off'}"),
    top("grpc_options: {enable_reflection: 'T'}"),
    top("grpc_options: {enable_reflection: 1}"),
    top("grpc_options: {enable_reflection: 1.0}"),
    top("grpc_options: {enable_reflection: 2}"),
    top("grpc_options: {enable_reflection: maybe}"),
    top("grpc_options: {grpc_servicer_functions: a.b}"),
    # Strict objects.
    top("controller_options: {}"),
    top("controller_options: {runtime_env: {env_vars: {A: b}}}"),
    top("controller_options: {runtime_env: {env_vars: {A: 1}}}"),
    top("controller_options: {runtime_env: {env_vars: {'': b}}}"),
    top("controller_options: {runtime_env: {pip: [x]}}"),
    top("controller_options: {other: 1}"),
    top("logging_config: {log_level: DEBUG}"),
    top("logging_config: {log_level: debug}"),
    top("logging_config: {log_level: 10}"),
    top("logging_config: {log_level: 15}"),
    top("logging_config: {log_level: '10'}"),
    top("logging_config: {log_level: true}"),
    top("logging_config: {encoding: JSON}"),
    top("logging_config: {encoding: json}"),
    top("logging_config: {additional_log_standard_attrs: [name, lineno, name]}"),
    top("logging_config: {additional_log_standard_attrs: [nome]}"),
    top("logging_config: {logs_dir: null, enable_access_log: yes}"),
    top("logging_config: {level: INFO}"),
    top("tracing_config: {enabled: true, sampling_ratio: 0.5}"),
    top("tracing_config: {sampling_ratio: 1.5}"),
    top("tracing_config: {other: 1}"),
    # Applications.
    app(""),
    "applications: [{name: x}]",
    "applications: [5]",
    app("name: ''"),
    app("name: 5"),
    app("name: null"),
    app("route_prefix: null"),
    app("route_prefix: no-slash/"),
    app("route_prefix: 5"),
    app("host: 0.0.0.0"),
    app("port: 8000"),
    app("args: {a: [1, {b: null}]}"),
    app("args: [1]"),
    app("args: null"),
    app("unknown: 1"),
    app("mobula: {}"),
    "applications: [{import_path: model}]",
    "applications: [{import_path: 'a.b'}]",
    "applications: [{import_path: '.b'}]",
    "applications: [{import_path: 'a.b.'}]",
    "applications: [{import_path: '.a.b'}]",
    "applications: [{import_path: ':b'}]",
    "applications: [{import_path: 'a:b:c'}]",
    "applications: [{import_path: 'a:'}]",
    "applications: [{import_path: ''}]",
    "applications: [{import_path: null}]",
    "applications: [{import_path: 'native:echo'}]",
    "applications: [{name: a, import_path: 'a:b'}, {name: a, import_path: 'a:b', route_prefix: /x}]",
    "applications: [{name: a, import_path: 'a:b'}, {name: b, import_path: 'a:b'}]",
    "applications: [{name: a, import_path: 'a:b'}, {name: b, import_path: 'a:b', route_prefix: /b}]",
    "applications: [{name: a, import_path: 'a:b', route_prefix: null}, {name: b, import_path: 'a:b', route_prefix: null}]",
    app("runtime_env: {working_dir: /srv/app}"),
    app("runtime_env: {working_dir: .}"),
    app("runtime_env: {working_dir: 'https://host/x.zip'}"),
    app("runtime_env: {working_dir: 's3://bucket/x.zip'}"),
    app("runtime_env: {working_dir: 'ftp://host/x.zip'}"),
    app("runtime_env: {working_dir: 'local:///srv/app'}"),
    app("runtime_env: {working_dir: 'local://srv/app'}"),
    app("runtime_env: {working_dir: 'local:///srv/app.zip'}"),
    app("runtime_env: {working_dir: 'local://C:/app'}"),
    app("runtime_env: {working_dir: 'C:/app'}"),
    app("runtime_env: {working_dir: null}"),
    app("runtime_env: {py_modules: ['https://host/x.whl', /srv]}"),
    app("runtime_env: {py_modules: ['file:///x.zip']}"),
    app("runtime_env: {pip: [x], anything: {a: 1}}"),
    app("runtime_env: null"),
    app("external_scaler_enabled: true"),
    app("external_scaler_enabled: true\ndeployments: [{name: D, num_replicas: auto}]"),
    app("external_scaler_enabled: true\ndeployments: [{name: D, autoscaling_config: {}}]"),
    app("external_scaler_enabled: true\ndeployments: [{name: D, autoscaling_config: null}]"),
    app("autoscaling_policy: {policy_function: 'a:b'}"),
    app("autoscaling_policy: 5"),
    app("logging_config: {level: INFO}"),
    app("deployments: null"),
    app("deployments: [{num_replicas: 1}]"),
    app("deployments: [{name: D}, {name: D, num_replicas: 2}]"),
    # Deployments.
    deployment("num_replicas: 2"),
    deployment("num_replicas: 0"),
    deployment("num_replicas: -1"),
    deployment("num_replicas: 2.0"),
    deployment("num_replicas: '2'"),
    deployment("num_replicas: auto"),
    deployment("num_replicas: AUTO"),
    deployment("num_replicas: null"),
    deployment("num_replicas: true"),
    deployment("num_replicas: false"),
    deployment("num_replicas: 2\nautoscaling_config: {max_replicas: 3}"),
    deployment("num_replicas: 2\nautoscaling_config: null"),
    deployment("num_replicas: 2\nautoscaling_config: {}"),
    deployment("num_replicas: auto\nautoscaling_config: {max_replicas: 3}"),
    deployment("num_replicas: null\nautoscaling_config: {max_replicas: 3}"),
    deployment("autoscaling_config: {max_replicas: -3}"),
    deployment("autoscaling_config: {min_replicas: 5, max_replicas: 3}"),
    deployment("autoscaling_config: {anything: 1}"),
    deployment("autoscaling_config: 5"),
    deployment("max_ongoing_requests: 10"),
    deployment("max_ongoing_requests: 0"),
    deployment("max_ongoing_requests: '10'"),
    deployment("max_ongoing_requests: 10.0"),
    deployment("max_ongoing_requests: null"),
    deployment("max_queued_requests: 5"),
    deployment("max_queued_requests: -1"),
    deployment("max_queued_requests: 0"),
    deployment("max_queued_requests: -2"),
    deployment("max_queued_requests: '5'"),
    deployment("max_queued_requests: 5.0"),
    deployment("max_queued_requests: true"),
    deployment("max_queued_requests: null"),
    deployment("max_concurrent_queries: 5"),
    deployment("backpressure_config: {}"),
    deployment("backpressure_config: {status_code: 429, retry_after_s: 1.5}"),
    deployment("backpressure_config: {status_code: 500}"),
    deployment("backpressure_config: {status_code: '429'}"),
    deployment("backpressure_config: {status_code: 429.0}"),
    deployment("backpressure_config: {retry_after_s: -1}"),
    deployment("backpressure_config: {retry_after: 1}"),
    deployment("backpressure_config: null"),
    deployment("user_config: {a: 1}"),
    deployment("user_config: null"),
    deployment("user_config: [1]"),
    deployment("user_config: x"),
    deployment("graceful_shutdown_wait_loop_s: 0"),
    deployment("graceful_shutdown_timeout_s: -0.1"),
    deployment("graceful_shutdown_timeout_s: null"),
    deployment("health_check_period_s: 0"),
    deployment("health_check_period_s: 0.1"),
    deployment("health_check_timeout_s: '5'"),
    deployment("ray_actor_options: {}"),
    deployment("ray_actor_options: null"),
    deployment("ray_actor_options: {num_cpus: 0.5, num_gpus: 1, memory: 1000}"),
    deployment("ray_actor_options: {num_cpus: -0.5}"),
    deployment("ray_actor_options: {num_cpus: null}"),
    deployment("ray_actor_options: {num_cpus: '2'}"),
    deployment("ray_actor_options: {unknown: 1}"),
    deployment("ray_actor_options: {resources: {a: 1}}"),
    deployment("ray_actor_options: {resources: [a]}"),
    deployment("ray_actor_options: {resources: null}"),
    deployment("ray_actor_options: {accelerator_type: T4}"),
    deployment("ray_actor_options: {label_selector: {a: '!b', c/d: 'in(x, y)'}}"),
    deployment("ray_actor_options: {label_selector: {a: '-b'}}"),
    deployment("ray_actor_options: {label_selector: {'-a': b}}"),
    deployment("ray_actor_options: {label_selector: {a: ''}}"),
    deployment("ray_actor_options: {label_selector: {a: 5}}"),
    deployment("ray_actor_options: {fallback_strategy: [{label_selector: {a: b}}]}"),
    deployment("ray_actor_options: {fallback_strategy: {a: b}}"),
    deployment("ray_actor_options: {runtime_env: {working_dir: /srv}}"),
    deployment("ray_actor_options: {runtime_env: {env_vars: {A: b}}}"),
    deployment("placement_group_bundles: [{CPU: 1}]"),
    deployment("placement_group_bundles: [{CPU: x}]"),
    deployment("placement_group_bundles: {CPU: 1}"),
    deployment("placement_group_bundles: null"),
    deployment("placement_group_strategy: ANYTHING"),
    deployment("placement_group_bundle_label_selector: [{a: b}]"),
    deployment("placement_group_bundles: [{CPU: 1}, {CPU: 1}]\nplacement_group_bundle_label_selector: [{a: b}]"),
    deployment("placement_group_bundles: [{CPU: 1}, {CPU: 1}]\nplacement_group_bundle_label_selector: []"),
    deployment("placement_group_bundles: [{CPU: 1}]\nplacement_group_bundle_label_selector: [{a: b}, {a: b}]"),
    deployment("max_replicas_per_node: 5"),
    deployment("max_replicas_per_node: 0"),
    deployment("max_replicas_per_node: 500"),
    deployment("max_replicas_per_node: null"),
    deployment("max_replicas_per_node: 5\nplacement_group_bundles: [{CPU: 1}]"),
    deployment("logging_config: {log_level: WARN}"),
    deployment("logging_config: {nope: 1}"),
    deployment("logging_config: null"),
    deployment("request_router_config: {}"),
    deployment("request_router_config: {initial_backoff_s: -1}"),
    deployment("request_router_config: null"),
    deployment("request_router_config: 5"),
    deployment("gang_scheduling_config: {gang_size: 2}"),
    deployment("gang_scheduling_config: null"),
    deployment("gang_scheduling_config: {}"),
    deployment("gang_scheduling_config: {gang_size: 0}"),
    deployment("gang_scheduling_config: {gang_size: 2, gang_placement_strategy: SPREAD}"),
    deployment("gang_scheduling_config: {gang_size: 2, gang_placement_strategy: STRICT}"),
    deployment("gang_scheduling_config: {gang_size: 2, runtime_failure_policy: RESTART_GANG}"),
    deployment("gang_scheduling_config: {gang_size: 2, runtime_failure_policy: RESTART_REPLICA}"),
    deployment("gang_scheduling_config: {gang_size: 2}\nnum_replicas: 3"),
    deployment("gang_scheduling_config: {gang_size: 2}\nnum_replicas: 4"),
    deployment("gang_scheduling_config: {gang_size: 2}\nnum_replicas: auto"),
    deployment("gang_scheduling_config: {gang_size: 2}\nnum_replicas: auto\nautoscaling_config: {max_replicas: 3}"),
    deployment("gang_scheduling_config: {gang_size: 2}\nnum_replicas: auto\nautoscaling_config: {max_replicas: 4}"),
    deployment("gang_scheduling_config: {gang_size: 2}\nplacement_group_strategy: PACK"),
    deployment("gang_scheduling_config: {gang_size: 2}\nmax_replicas_per_node: 2"),
    deployment("deployment_actors: [{name: a, actor_class: 'x:Y'}]"),
    deployment("deployment_actors: []"),
    deployment("deployment_actors: null"),
    deployment("deployment_actors: {}"),
    deployment("rolling_update_percentage: 1"),
    deployment("rolling_update_percentage: 0"),
    deployment("rolling_update_percentage: 1.1"),
    deployment("max_surge_percent: 100"),
    deployment("max_surge_percent: 101"),
    deployment("max_surge_percent: 10.5"),
    deployment("max_surge_percent: '10'"),
    # What we are stricter about.
    top("http_options: {port: 70000}"),
    top("http_options: {request_timeout_s: .inf}"),
    top("http_options: {request_timeout_s: 'nan'}"),
    app("runtime_env: {env_vars: {A: 1}}"),
    app("mobula: {typo: 1}"),
    deployment("ray_actor_options: {resources: {a: x}}"),
    deployment("max_ongoing_requests: 99999999999"),
    # YAML.
    "applications: [\n",
    "applications: []\n---\napplications: []\n",
    "",
    "a: &a {import_path: 'a:b'}\napplications: [*a]\n",
    "base: &b {import_path: 'a:b', route_prefix: /x}\napplications: [{<<: *b, route_prefix: /y}]\n",
    "applications: !!python/name:os.system\n",
    "applications: []\napplications: 5\n",
    "applications: 5\napplications: []\n",
    "applications: []\n\tb: 1\n",
    "applications: [{import_path: 'a:b', args: {on: yes, 2: x}}]",
]


def fields(schema):
    """What must come out the same, as far as it was given."""
    http = schema.http_options
    timeout = http.request_timeout_s
    if timeout is not None and not math.isfinite(timeout):
        timeout = repr(timeout)  # JSON has no such numbers.
    out = {"port": http.port, "request_timeout_s": timeout, "apps": []}
    for application in schema.applications:
        entry = {
            "name": application.name,
            "route_prefix": application.route_prefix,
            "args": json.loads(json.dumps(application.args)),
            "deployments": [],
        }
        for item in application.deployments:
            given = item.model_dump(exclude_unset=True)
            entry["deployments"].append(
                {key: given[key] for key in ("num_replicas", "max_ongoing_requests") if key in given}
            )
        out["apps"].append(entry)
    return out


def verdict(text):
    try:
        schema = ServeDeploySchema.model_validate(yaml.safe_load(text))
    except Exception:
        return {"text": text, "accepted": False}
    return {"text": text, "accepted": True, "fields": fields(schema)}


json.dump([verdict(text) for text in DOCUMENTS], sys.stdout, indent=1)
sys.stdout.write("\n")

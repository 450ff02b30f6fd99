"""A Snakemake executor plugin that runs jobs on Slurm through submitit.

Every start of Snakemake imports this package, so it imports little: the modules that submit and
watch jobs are imported once the executor is used.
"""

from snakemake_interface_executor_plugins.settings import CommonSettings

from snakemake_executor_plugin_submitit.executor import Executor
from snakemake_executor_plugin_submitit.settings import ExecutorSettings

__all__ = ["Executor", "ExecutorSettings", "common_settings"]

common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    # sbatch exports the environment, so that no secret has to appear in a command line.
    pass_envvar_declarations_to_cmd=False,
    auto_deploy_default_storage_provider=False,
)

"""What developers build in a day: mostly what is cached already, some changes, some failures."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.arms import write_tree
from bench.single import local_arguments, push
from devstack.stack import Stack

NAMESPACES, REPOSITORIES = 10, 20
SHARES: Mapping[str, float] = {"cached": 0.80, "changed": 0.15, "step": 0.04, "failing": 0.01}
STEP_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Job:
    """One build of the mix, in both languages; `right` is the phase that it should end in."""

    name: str
    namespace: str
    spec: Mapping[str, Any]
    buildctl: Sequence[str]
    right: str


@dataclass(frozen=True, slots=True)
class Mix:
    """Makes the jobs: each repository is of one namespace; files for buildctl go into `folder`."""

    stack: Stack
    folder: Path

    @property
    def namespaces(self) -> list[str]:
        """Of the repositories."""
        return [f"team-{number}" for number in range(NAMESPACES)]

    def jobs(self, count: int, title: str) -> list[Job]:
        """So many, in shares and in an order that are the same in every run."""
        kinds = [kind for kind, share in SHARES.items() for _ in range(round(count * share))]
        random.Random(count).shuffle(kinds)  # noqa: S311  # no secret
        return [
            self.job(kind, f"{title}-{number}", number % REPOSITORIES)
            for number, kind in enumerate(kinds)
        ]

    def rebuilds(self, times: int, title: str) -> list[Job]:
        """So many builds of every repository, each with something changed.

        Their images are not those of the other jobs, which all workers may have.
        """
        jobs = []
        for number in range(times * REPOSITORIES):
            job = self.job("changed", f"{title}-{number}", number % REPOSITORIES)
            image = f"{self.stack.registry}/load/again-{number % REPOSITORIES}:operator"
            jobs.append(replace(job, spec={**job.spec, "images": [image]}))
        return jobs

    def crowd(self, count: int, title: str, kind: str = "cached") -> list[Job]:
        """So many builds of one namespace."""
        return [self.job(kind, f"{title}-{number}", 0) for number in range(count)]

    def job(self, kind: str, name: str, repository: int) -> Job:
        """One build of this kind and repository; all but the cached ones are new by their name."""
        files = self._files(kind, name)
        image = f"{self.stack.registry}/load/app-{repository}"
        # What is the same for all that are cached lies on disk once.
        folder = self.folder / (name if kind != "cached" else "cached")
        return Job(
            name=name,
            namespace=f"team-{repository % NAMESPACES}",
            spec={"source": {"inline": {"files": files}}, "images": [f"{image}:operator"]},
            buildctl=[*local_arguments(write_tree(folder, files)), *push(f"{image}:direct")],
            right="Failed" if kind == "failing" else "Succeeded",
        )

    def _files(self, kind: str, name: str) -> dict[str, str]:
        steps = {
            "step": f"RUN echo {name} && sleep {STEP_SECONDS}\n",
            "failing": f"RUN echo {name} && exit 7\n",
        }
        start = f"FROM {self.stack.base_image}\nCOPY app/ /app/\nRUN cat /app/main.txt\n"
        text = f"{name}\n" if kind == "changed" else "main\n"
        return {"Dockerfile": start + steps.get(kind, ""), "app/main.txt": text}

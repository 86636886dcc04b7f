"""Models from the Hugging Face Hub, by huggingface_hub: its cache, tokens, mirror (HF_ENDPOINT) and offline mode."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robustdistiller.common.installation import diagnose
from robustdistiller.upstream.pretrained.names import CTRANSLATE2_FILE, INPUT_FILES, WEIGHT_FILES, nearest


def hub_folder(
    repository: str, revision: str | None = None, refresh: bool = False, local_files_only: bool = False
) -> Path:
    """The folder that holds a model's configuration and weights. Only the files that are read are downloaded.

    Args:
        repository: ``org/name``.
        revision: branch, tag or commit; None for the main branch.
        refresh: download again.
        local_files_only: as in offline mode: take what is in the cache.

    Raises:
        FileNotFoundError: it could not be had; why, and what to do, in one sentence.
    """
    from huggingface_hub import constants, errors  # takes a while to import

    offline = local_files_only or constants.HF_HUB_OFFLINE
    name, page = f"{repository}@{revision}" if revision else repository, f"{constants.ENDPOINT}/{repository}"
    try:
        return _Files(repository, revision, refresh, offline).folder()
    except errors.GatedRepoError as error:
        raise FileNotFoundError(
            f"{name} is gated: accept its terms at {page} and give your token, with HF_TOKEN=... or `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"{name}: {repository} has no revision {revision!r}; {page} shows those it has"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{name} is neither a file or folder (seen from {Path.cwd()}) nor a public model at {page}; a private one "
            f"needs your token, with HF_TOKEN=... or `hf auth login`{nearest(repository)}"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        reason = "offline mode is on (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else f"{page} could not be reached"
        raise FileNotFoundError(
            f"{name} is neither a file or folder (seen from {Path.cwd()}) nor in the Hub's cache on this machine "
            f"({constants.HF_HUB_CACHE}), and {reason}"
        ) from error
    except errors.EntryNotFoundError as error:
        raise FileNotFoundError(
            f"{name} holds no {_missing(error)}, so it is no model that can be read by its name; a single file in it "
            f"can be named by its URL, see {page}/tree/{revision or 'main'}"
        ) from error
    except (OSError, *errors.HfHubHTTPError.__bases__) as error:  # type: ignore[misc]
        if isinstance(error, FileNotFoundError) or diagnose(error):
            raise
        why = " ".join(str(error).split())
        raise FileNotFoundError(f"{name} could not be fetched from {page}: {why}") from error


@contextmanager
def writing_explained(repository: str) -> Iterator[None]:
    """Let what goes wrong when something is uploaded be said in one sentence, with what to do.

    Args:
        repository: ``org/name``.

    Raises:
        PermissionError: there is no token, it is not valid, or it may not write there.
        ConnectionError: the Hub could not be reached, or refused for another reason.
    """
    from huggingface_hub import constants, errors

    tokens = f"{constants.ENDPOINT}/settings/tokens"
    give = f"give one of {tokens} that may write, with HF_TOKEN=... or `hf auth login`"
    try:
        yield
    except errors.LocalTokenNotFoundError as error:
        raise PermissionError(f"{repository} is not written: no token was found; {give}") from error
    except errors.OfflineModeIsEnabled as error:
        raise ConnectionError(f"{repository} is not written: offline mode is on (HF_HUB_OFFLINE)") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status == 401:
            raise PermissionError(f"{repository} is not written: no token, or one that is not valid; {give}") from error
        if status == 403:
            org = repository.partition("/")[0]
            raise PermissionError(
                f"{repository} is not written: your token may not write to {org}; {give} to {org}. "
                f"A folder would be ./{repository}"
            ) from error
        why = getattr(error, "server_message", None) or str(error)
        raise ConnectionError(f"{repository} is not written: {' '.join(why.split())}") from error
    except FileExistsError:
        raise
    except (OSError, *errors.HfHubHTTPError.__bases__) as error:  # type: ignore[misc]
        why = f"{constants.ENDPOINT} could not be reached ({' '.join(str(error).split())})"
        raise ConnectionError(f"{repository} is not written: {why}") from error


class _Files:
    """The files of one model, all of one commit."""

    def __init__(self, repository: str, revision: str | None, refresh: bool, offline: bool) -> None:
        self.repository, self.revision, self.refresh, self.offline = repository, revision, refresh, offline

    def folder(self) -> Path:
        """Fetch what is needed. The weights come last: where they are, the rest was looked for."""
        folder = self._get("config.json").parent
        self.revision = folder.name  # the commit, should the branch move meanwhile
        for name in INPUT_FILES:
            self._find(name)
        for name in WEIGHT_FILES:
            if self._find(name):
                return folder
            index = self._find(f"{name}.index.json")
            if index:
                weights = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {})
                for part in sorted(set(weights.values())):
                    self._get(part)
                return folder
        if self._find(CTRANSLATE2_FILE):
            return folder
        self._get(WEIGHT_FILES[-1])  # says what is wrong
        raise FileNotFoundError(f"{self.repository} holds neither {' nor '.join(WEIGHT_FILES)}")

    def _get(self, file: str) -> Path:
        from huggingface_hub import hf_hub_download

        return Path(
            hf_hub_download(
                self.repository,
                file,
                revision=self.revision,
                force_download=self.refresh and not self.offline,
                local_files_only=self.offline,
                library_name="robustdistiller",
            )
        )

    def _find(self, file: str) -> Path | None:
        """The same for a file that the model may not have."""
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            return self._get(file)
        except LocalEntryNotFoundError:
            self.offline = True  # whether it exists cannot be known, so what follows has to be here already
            return None
        except EntryNotFoundError:
            return None


def _missing(error: Exception) -> str:
    """The file that a 404 was about: the last part of the URL in huggingface_hub's message."""
    response = getattr(error, "response", None)
    return str(getattr(response, "url", "") or "config.json").rpartition("/")[2]

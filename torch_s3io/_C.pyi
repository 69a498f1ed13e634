"""
The C++ core of torch_s3io. Private: use the Python package.
"""
from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import os
import typing
import typing_extensions
__all__: list[str] = ['AlignedBuf', 'Arena', 'BatchFetcher', 'BatchForm', 'BatchIterator', 'BufferPool', 'CompositeStore', 'CredentialBoard', 'CredentialSource', 'DocumentBlocks', 'DocumentColumns', 'Documents', 'EpochBoard', 'EpochPlan', 'FaultPlan', 'Field', 'FileObjects', 'FileStore', 'FixedForm', 'FoundFiles', 'LengthSum', 'MOST_DOCUMENTS_IN_BLOCK', 'NUMBERS_OF_TOKEN_PART', 'NpyHeads', 'ObjectInfo', 'ObjectVersion', 'ObjectWriter', 'Objects', 'PURPOSE_AUGMENTATION', 'PURPOSE_SPLIT', 'Permutation', 'RaggedField', 'RecordOrder', 'RecordSource', 'S3Objects', 'S3Reads', 'SampleForm', 'SampleNames', 'SamplePlaces', 'SampleTable', 'SequenceCheck', 'Store', 'TableField', 'TarMembers', 'TokenForm', 'available_memory_bytes', 'available_processors', 'batch_sizes', 'benchmark_allocate_free', 'benchmark_take_give', 'built_with_s3', 'built_with_uring', 'changed_folder', 'check_sequences', 'common_folder_bytes', 'count_repeated', 'counts_up', 'crc32c', 'crc32c_method', 'deferred_releases', 'derive_key', 'direct_alignment', 'file_system_config', 'fixed_credentials', 'folder_labels', 'handover_events', 'inspect_files', 'inspect_paths', 'json_lines', 'kept_checksum', 'mapped_files', 'measure_reads', 'memory_limit_bytes', 'open_shared', 'parse_npy_heads', 'pending_releases', 'read_heads', 'receive_tensor', 'refused_calls', 'remove_abandoned', 's3_abort_upload', 's3_put', 's3_remove', 's3_uploads', 's3_version', 's3_writer', 'scan_folder', 'scan_tars', 'send_tensor', 'shared_storage', 'sum_lengths', 'take_back_tensor', 'uring_unavailable_reason']
class AlignedBuf:
    """
    A lease on one buffer of a BufferPool. Goes back with `BufferPool.give`, or when it is collected.
    """
    def __len__(self) -> int:
        ...
    def tensor(self) -> typing.Any:
        """
        The buffer as a uint8 tensor [len(self)] that views it. The lease passes to the tensor: the buffer goes back to its pool when the last view of it dies.
        """
    @property
    def is_valid(self) -> bool:
        """
        False once given back or turned into a tensor.
        """
class BufferPool:
    def __init__(self, *, capacity: typing.SupportsInt | typing.SupportsIndex, buffer_size: typing.SupportsInt | typing.SupportsIndex, alignment: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def give(self, buffer: AlignedBuf) -> None:
        ...
    def stats(self) -> dict[str, typing.Any]:
        ...
    def take(self, size_bytes: typing.SupportsInt | typing.SupportsIndex | None = None, *, timeout_s: typing.SupportsFloat | typing.SupportsIndex = 30.0) -> AlignedBuf:
        ...
    @property
    def alignment(self) -> int:
        ...
    @property
    def buffer_size(self) -> int:
        ...
    @property
    def capacity(self) -> int:
        ...
class Permutation:
    """
    A keyed permutation of [0, size), computed and not stored.
    """
    def __init__(self, *, size: typing.SupportsInt | typing.SupportsIndex, key: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def __len__(self) -> int:
        ...
    def at(self, position: typing.SupportsInt | typing.SupportsIndex) -> int:
        ...
    def fill(self, first: typing.SupportsInt | typing.SupportsIndex, count: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.int64]:
        """
        The values at `count` positions from `first`.
        """
    def position_of(self, value: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        The inverse of at.
        """
class RecordOrder:
    """
    Which record comes when: see csrc/order/record_order.h.
    """
    @staticmethod
    def block(num_records: typing.SupportsInt | typing.SupportsIndex, block_records: typing.SupportsInt | typing.SupportsIndex, seed: typing.SupportsInt | typing.SupportsIndex) -> RecordOrder:
        ...
    @staticmethod
    def mix(parts: collections.abc.Sequence[tuple[RecordOrder, typing.SupportsInt | typing.SupportsIndex]], weights: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], seed: typing.SupportsInt | typing.SupportsIndex, epoch_positions: typing.SupportsInt | typing.SupportsIndex) -> RecordOrder:
        """
        `parts`: (order, first_record). `weights`: whole numbers, in proportion.
        """
    @staticmethod
    def sequential(num_records: typing.SupportsInt | typing.SupportsIndex) -> RecordOrder:
        ...
    @staticmethod
    def shuffled(num_records: typing.SupportsInt | typing.SupportsIndex, seed: typing.SupportsInt | typing.SupportsIndex) -> RecordOrder:
        ...
    def numbered_by_epoch(self, num_numbers: typing.SupportsInt | typing.SupportsIndex) -> RecordOrder:
        """
        Record r of epoch e is number e * num_records + r.
        """
    def records(self, epoch: typing.SupportsInt | typing.SupportsIndex, first: typing.SupportsInt | typing.SupportsIndex, count: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.int64]:
        """
        The records at `count` positions of an epoch from `first`.
        """
    def select(self, stages: collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex] | None]]) -> RecordOrder:
        """
        `stages`: (offset, count, None or (size, key) of a permutation), innermost view first.
        """
    def windowed(self, window_positions: typing.SupportsInt | typing.SupportsIndex, seed: typing.SupportsInt | typing.SupportsIndex) -> RecordOrder:
        """
        Mixed within windows of so many positions.
        """
    @property
    def num_positions(self) -> int:
        ...
    @property
    def num_records(self) -> int:
        ...
class EpochPlan:
    """
    Which records make up which batch: see csrc/order/epoch_plan.h.
    """
    def __init__(self, *, order: RecordOrder, epoch: typing.SupportsInt | typing.SupportsIndex, batch_size: typing.SupportsInt | typing.SupportsIndex, drop_last: bool = False, pad_last: bool = False, rank: typing.SupportsInt | typing.SupportsIndex = 0, world_size: typing.SupportsInt | typing.SupportsIndex = 1, worker: typing.SupportsInt | typing.SupportsIndex = 0, num_workers: typing.SupportsInt | typing.SupportsIndex = 1, group_size: typing.SupportsInt | typing.SupportsIndex = 1, start: typing.SupportsInt | typing.SupportsIndex = 0) -> None:
        ...
    def consumed_after(self, steps: typing.SupportsInt | typing.SupportsIndex) -> int:
        ...
    def records(self, group: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.int64]:
        ...
    def step_of(self, batch: typing.SupportsInt | typing.SupportsIndex) -> int:
        ...
    @property
    def dropped_records(self) -> int:
        ...
    @property
    def max_group_records(self) -> int:
        ...
    @property
    def num_groups(self) -> int:
        ...
    @property
    def num_local_batches(self) -> int:
        ...
    @property
    def num_steps(self) -> int:
        ...
    @property
    def padded_records(self) -> int:
        ...
class EpochBoard:
    """
    See csrc/memory/epoch_board.h.
    """
    TEAMS: typing.ClassVar[int] = 256
    @staticmethod
    def adopt(*, fd: typing.SupportsInt | typing.SupportsIndex) -> EpochBoard:
        """
        The board of another process; takes the descriptor over.
        """
    def __init__(self) -> None:
        ...
    def clear(self, place: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        For another team.
        """
    def join(self, *, place: typing.SupportsInt | typing.SupportsIndex, team: typing.SupportsInt | typing.SupportsIndex, number: typing.SupportsInt | typing.SupportsIndex, offered: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, bool]) -> tuple[int, int, int, bool] | None:
        """
        (epoch, start, change, repeats) of a team's pass; None where it is not known any more.
        """
    def mark_begun(self, change: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def mark_read(self, change: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def note_restored(self, *, place: typing.SupportsInt | typing.SupportsIndex, epoch: typing.SupportsInt | typing.SupportsIndex, has_left: bool, sharing: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def read(self) -> tuple[int, int, int, bool]:
        """
        What was set.
        """
    def restored_epoch(self, place: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        That a team goes on with, as the states of its workers say; 0 without any.
        """
    def set(self, position: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, bool]) -> None:
        """
        (epoch, start, change, repeats) of the data set.
        """
    def warn_once(self, topic: typing.SupportsInt | typing.SupportsIndex) -> bool:
        """
        True for the first caller in all processes: who warns.
        """
    def was_read(self, change: typing.SupportsInt | typing.SupportsIndex) -> bool:
        """
        Whether workers have read more than a look there.
        """
    def worker_kinds(self) -> list[str]:
        """
        The engines and page sizes that workers use.
        """
    def worker_stats(self) -> dict[str, typing.Any]:
        """
        What the readers of all workers counted.
        """
    @property
    def fd(self) -> int:
        ...
    @property
    def has_begun(self) -> bool:
        """
        Whether workers have begun at the position that was set last.
        """
class FaultPlan:
    """
    For tests: see FaultEngine.
    """
    def __init__(self, *, seed: typing.SupportsInt | typing.SupportsIndex = 0, by_number: collections.abc.Mapping[typing.SupportsInt | typing.SupportsIndex, tuple[typing.SupportsInt | typing.SupportsIndex, bool, bool]] = {}, probability: typing.SupportsFloat | typing.SupportsIndex = 0.0, random: collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, bool, bool]] = [], reorder: bool = False, failing_wait: typing.SupportsInt | typing.SupportsIndex = -1, by_call: collections.abc.Mapping[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex] = {}) -> None:
        ...
    def release(self) -> None:
        """
        Lets go of the system call that hangs (-2 in by_call).
        """
class ObjectVersion:
    def __init__(self, device: typing.SupportsInt | typing.SupportsIndex, inode: typing.SupportsInt | typing.SupportsIndex, size_bytes: typing.SupportsInt | typing.SupportsIndex, modified_ns: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
class Store:
    pass
class FileObjects(Store):
    def __init__(self, *, direct: str, engine: str, alignment: typing.SupportsInt | typing.SupportsIndex, faults: FaultPlan | None) -> None:
        """
        alignment: of direct reads, in bytes; 1: none is direct.
        """
class CompositeStore(Store):
    def __init__(self, stores: collections.abc.Mapping[str, Store]) -> None:
        """
        By what paths begin with; "": those without a scheme.
        """
class Objects:
    def __init__(self, *, paths: typing_extensions.Buffer, path_ends: typing_extensions.Buffer, versions: typing_extensions.Buffer) -> None:
        """
        Columns, which are kept: the paths of n objects, one after the other, uint8; where each ends, uint64 [n]; versions, uint64 [n, 4]: device, inode, size in bytes, time of change in ns.
        """
class Field:
    def __init__(self, *, name: str, type: str, output: str, swap_bytes: bool, offset: typing.SupportsInt | typing.SupportsIndex, shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> None:
        ...
class RaggedField:
    def __init__(self, *, name: str, type: str, swap_bytes: bool, shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], piece: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        shape: of one sample; -1: an axis of any length.
        """
class TableField:
    def __init__(self, *, name: str, type: str, shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> None:
        ...
class SampleTable:
    def __init__(self, *, num_samples: typing.SupportsInt | typing.SupportsIndex, first_samples: typing_extensions.Buffer | None, ends: typing_extensions.Buffer, starts: collections.abc.Sequence[typing_extensions.Buffer | None], length_bytes: typing.SupportsInt | typing.SupportsIndex, lengths: collections.abc.Sequence[typing_extensions.Buffer], values: collections.abc.Sequence[typing_extensions.Buffer], crc32c: typing_extensions.Buffer | None) -> None:
        """
        Arrays of the n samples of successive objects, which are kept. Of each object: first_samples uint64 (None: there is one object, or one sample in each), ends uint64, beyond which no sample reaches. Of each piece of a sample: starts uint64 [n], None: 0. Of each ragged field: lengths [n, open axes]. Of each table field: values [n, *shape]. crc32c: uint32 [n] or None.
        """
class SamplePlaces:
    """
    Where samples go that are written one after the other.
    """
    def __init__(self, *, blocks: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], most_padding_percent: typing.SupportsInt | typing.SupportsIndex, alignment: typing.SupportsInt | typing.SupportsIndex, shard_bytes: typing.SupportsInt | typing.SupportsIndex, index_bytes: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def add(self, sizes: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> list[int]:
        """
        The starts of those for which the shard has room.
        """
    def begin_shard(self) -> None:
        ...
    @property
    def data_bytes(self) -> int:
        ...
    @property
    def end(self) -> int:
        ...
class BatchForm:
    def most_bytes(self, count: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        Bytes of a buffer that no batch of so many records exceeds.
        """
class FixedForm(BatchForm):
    def __init__(self, *, objects: Objects, header_bytes: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], num_records: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], fields: collections.abc.Sequence[Field], record_bytes: typing.SupportsInt | typing.SupportsIndex, record_stride: typing.SupportsInt | typing.SupportsIndex, alignment: typing.SupportsInt | typing.SupportsIndex, with_record_numbers: bool) -> None:
        ...
class SampleForm(BatchForm):
    def __init__(self, *, objects: Objects, tables: collections.abc.Sequence[SampleTable], fields: collections.abc.Sequence[Field], record_bytes: typing.SupportsInt | typing.SupportsIndex, in_table: collections.abc.Sequence[TableField], ragged: collections.abc.Sequence[RaggedField], largest_sample_bytes: typing.SupportsInt | typing.SupportsIndex, typical_bytes: typing.SupportsInt | typing.SupportsIndex, realigns: bool, alignment: typing.SupportsInt | typing.SupportsIndex, with_record_numbers: bool) -> None:
        ...
class SequenceCheck:
    """
    See csrc/format/index_columns.h.
    """
    @property
    def displaced(self) -> int:
        ...
    @property
    def end_bytes(self) -> int:
        ...
    @property
    def is_endless(self) -> bool:
        ...
    @property
    def too_long(self) -> int:
        ...
class LengthSum:
    @property
    def longest(self) -> int:
        ...
    @property
    def total(self) -> int:
        ...
class DocumentColumns:
    def __init__(self, *, num_documents: typing.SupportsInt | typing.SupportsIndex, starts: typing_extensions.Buffer, lengths: typing_extensions.Buffer, length_bytes: typing.SupportsInt | typing.SupportsIndex, end: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Arrays of the n documents of one object, which are kept, and may lie at any address: starts uint64 [n], bytes from its start; lengths [n], tokens. No document reaches beyond byte `end`.
        """
class Documents:
    """
    Documents of tokens in objects.
    """
    def __init__(self, *, objects: collections.abc.Sequence[DocumentColumns], token_bytes: typing.SupportsInt | typing.SupportsIndex, selected: RecordOrder | None) -> None:
        """
        selected: the documents of its first epoch, or None for all.
        """
class DocumentBlocks:
    """
    See csrc/order/document_stream.h.
    """
    def __init__(self, *, documents: Documents, block_documents: typing.SupportsInt | typing.SupportsIndex, is_shuffled: bool, seed: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def num_tokens(self) -> int:
        ...
class TokenForm(BatchForm):
    def __init__(self, *, objects: Objects, documents: collections.abc.Sequence[Documents], blocks: collections.abc.Sequence[DocumentBlocks], token: Field, records: str, window: typing.SupportsInt | typing.SupportsIndex, stride: typing.SupportsInt | typing.SupportsIndex, with_documents: bool, longest: typing.SupportsInt | typing.SupportsIndex, kept_blocks: typing.SupportsInt | typing.SupportsIndex, typical_bytes: typing.SupportsInt | typing.SupportsIndex, alignment: typing.SupportsInt | typing.SupportsIndex, with_record_numbers: bool) -> None:
        ...
class RecordSource:
    def __init__(self, *, store: Store, objects: Objects, form: BatchForm, chunk_bytes: typing.SupportsInt | typing.SupportsIndex, depth: typing.SupportsInt | typing.SupportsIndex, read_timeout_s: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    def stats(self) -> dict[str, typing.Any]:
        ...
class BatchIterator:
    def __init__(self, *, source: RecordSource, plan: EpochPlan, pool: BufferPool | None, reads_on: bool = False, fill_block_bytes: typing.SupportsInt | typing.SupportsIndex = 0, window_positions: typing.SupportsInt | typing.SupportsIndex = 0, share: typing.SupportsInt | typing.SupportsIndex = 0, count: typing.SupportsInt | typing.SupportsIndex = 1, processes: typing.SupportsInt | typing.SupportsIndex = 1, board: EpochBoard | None = None) -> None:
        """
        fill_block_bytes: of ReaderOptions. window_positions, share, count: of a WindowReadahead. processes: that share the processors. board: to publish counters on.
        """
    def __iter__(self) -> typing.Any:
        ...
    def __next__(self) -> typing.Any:
        ...
    def begin_next_epoch(self, plan: EpochPlan) -> bool:
        """
        Goes on after StopIteration, if `plan` is what it has read ahead.
        """
    def close(self) -> None:
        ...
    @property
    def engine(self) -> str:
        ...
class BatchFetcher:
    def __init__(self, *, source: RecordSource, pool: BufferPool | None, processes: typing.SupportsInt | typing.SupportsIndex = 1) -> None:
        ...
    def fetch(self, source: RecordSource, records: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], *, board: EpochBoard | None = None) -> typing.Any:
        ...
class ObjectWriter:
    def cancel(self) -> None:
        ...
    def finish(self) -> tuple[int, int | None, bool]:
        ...
    def write(self, data: typing_extensions.Buffer, copy: bool) -> None:
        ...
    def write_rows(self, rows: typing_extensions.Buffer, row_bytes: typing.SupportsInt | typing.SupportsIndex, stride_bytes: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def write_samples(self, starts: list[int], sizes: list[int], columns: collections.abc.Sequence[tuple[list[int], typing.Any]]) -> list[int]:
        """
        Appends samples from these bytes of the file on, zeros before them, and gives the CRC-32C of each. A column is (begins within each sample, pieces); pieces is a list of buffers, or (buffer, begins, ends) within it.
        """
    @property
    def size(self) -> int:
        ...
class ObjectInfo:
    """
    What a store knows of an object without reading it.
    """
    def __repr__(self) -> str:
        ...
    @property
    def direct_alignment(self) -> int:
        ...
    @property
    def modified_ns(self) -> int:
        ...
    @property
    def size_bytes(self) -> int:
        ...
class FileStore:
    def __init__(self, *, direct_io: str, alignment: typing.SupportsInt | typing.SupportsIndex, min_io_size: typing.SupportsInt | typing.SupportsIndex, sync_writes: bool, checksum_writes: bool, enable_range_engine: bool, chunk_size: typing.SupportsInt | typing.SupportsIndex, max_concurrent_ranges: typing.SupportsInt | typing.SupportsIndex, min_split_size: typing.SupportsInt | typing.SupportsIndex, range_timeout_s: typing.SupportsFloat | typing.SupportsIndex, buffer_pool: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex] | None, engine: str, faults: FaultPlan | None) -> None:
        ...
    def checksum(self, path: os.PathLike | str | bytes) -> tuple[int, int]:
        ...
    def get(self, path: os.PathLike | str | bytes) -> typing.Any:
        ...
    def get_range(self, path: os.PathLike | str | bytes, offset: typing.SupportsInt | typing.SupportsIndex, length: typing.SupportsInt | typing.SupportsIndex) -> typing.Any:
        ...
    def list(self, prefix: os.PathLike | str | bytes) -> list[str]:
        ...
    def stat(self, path: os.PathLike | str | bytes) -> ObjectInfo:
        ...
    def stats(self) -> dict[str, typing.Any]:
        ...
    def writer(self, path: os.PathLike | str | bytes, size_bytes: typing.SupportsInt | typing.SupportsIndex | None, follow_links: bool, if_absent: bool) -> ObjectWriter:
        ...
class CredentialSource:
    """
    Where the credentials of an S3Objects come from.
    """
class CredentialBoard:
    """
    Where a process says credentials to its workers.
    """
    @staticmethod
    def adopt(*, fd: typing.SupportsInt | typing.SupportsIndex, bell_fd: typing.SupportsInt | typing.SupportsIndex) -> CredentialBoard:
        """
        The board of another process; takes the descriptors over.
        """
    def __init__(self) -> None:
        ...
    def say(self, *, access_key: str, secret_key: str, session_token: str, expires_s: typing.SupportsFloat | typing.SupportsIndex, is_renewed: bool, problem: str) -> None:
        """
        expires_s: since 1970; 0: nobody knows. problem: why there are no newer ones.
        """
    def source(self) -> CredentialSource:
        """
        What is on the board, whenever it is asked for; of this process.
        """
    @property
    def bell_fd(self) -> int:
        """
        An eventfd, readable once somebody wants newer ones.
        """
    @property
    def fd(self) -> int:
        ...
class S3Objects(Store):
    def __init__(self, *, endpoint: str, region: str, addressing: str, requester_pays: bool, ca_file: str, connect_timeout_s: typing.SupportsFloat | typing.SupportsIndex, stall_timeout_s: typing.SupportsFloat | typing.SupportsIndex, max_idle_s: typing.SupportsInt | typing.SupportsIndex, max_attempts: typing.SupportsInt | typing.SupportsIndex, retry_timeout_s: typing.SupportsFloat | typing.SupportsIndex, retries_per_s: typing.SupportsFloat | typing.SupportsIndex, part_bytes: typing.SupportsInt | typing.SupportsIndex, connections: typing.SupportsInt | typing.SupportsIndex, credentials: CredentialSource) -> None:
        """
        Of this process. An empty endpoint is AWS's of the region.
        """
    def honours_if_match(self, path: os.PathLike | str | bytes, version: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex], *, timeout_s: typing.SupportsFloat | typing.SupportsIndex) -> bool:
        """
        Whether the server refuses to send another version than is asked for.
        """
    def know_etags(self, etags: collections.abc.Sequence[str]) -> None:
        """
        Of versions that will be opened, and do not tell them.
        """
    def list_objects(self, prefix: os.PathLike | str | bytes, most: typing.SupportsInt | typing.SupportsIndex = 0) -> list[tuple[str, tuple[int, int, int, int], str]]:
        """
        (path, version, ETag) of each object, by path; see `s3_version`. The ETag is empty where the version tells it. The first ones, at most 1000, where `most` is more than 0.
        """
    def stat(self, path: os.PathLike | str | bytes) -> tuple[tuple[int, int, int, int], str]:
        """
        (version, ETag), by a HEAD.
        """
class S3Reads:
    def __init__(self, *, objects: S3Objects, buffer_pool: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex] | None, depth: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        buffer_pool: (capacity, buffer_size, alignment).
        """
    def checksum(self, path: os.PathLike | str | bytes, *, compares: bool = True) -> int:
        """
        CRC-32C of the object as it is now, compared with the server's, if any.
        """
    def read(self, path: os.PathLike | str | bytes, offset: typing.SupportsInt | typing.SupportsIndex, length: typing.SupportsInt | typing.SupportsIndex | None, *, version: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex] | None = None, clips: bool = False) -> typing.Any:
        """
        A uint8 tensor. version: see `s3_version`; else the one that is there now.
        """
    def read_into(self, path: os.PathLike | str | bytes, offset: typing.SupportsInt | typing.SupportsIndex, into: typing_extensions.Buffer, *, version: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex] | None = None) -> None:
        """
        The same, into contiguous memory.
        """
    def read_whole(self, path: os.PathLike | str | bytes) -> typing.Any:
        """
        A uint8 tensor of the object as it is now, as the server's checksum of it says.
        """
class Arena:
    @staticmethod
    def adopt(*, fd: typing.SupportsInt | typing.SupportsIndex, id: typing.SupportsInt | typing.SupportsIndex, capacity: typing.SupportsInt | typing.SupportsIndex, buffer_size: typing.SupportsInt | typing.SupportsIndex, alignment: typing.SupportsInt | typing.SupportsIndex) -> Arena:
        """
        The arena of another process; takes the descriptor over.
        """
    def __init__(self, *, capacity: typing.SupportsInt | typing.SupportsIndex, buffer_size: typing.SupportsInt | typing.SupportsIndex, alignment: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def claim(self, *, preferred: typing.SupportsInt | typing.SupportsIndex, capacity: typing.SupportsInt | typing.SupportsIndex) -> BufferPool | None:
        ...
    def guard_device_copies(self) -> bool:
        ...
    def prepared_segments(self) -> list[tuple[int, int]]:
        ...
    def stats(self) -> dict[str, typing.Any]:
        ...
    @property
    def backed_bytes(self) -> int:
        ...
    @property
    def fd(self) -> int:
        ...
    @property
    def id(self) -> int:
        ...
class FoundFiles:
    """
    Columns: see csrc/io/folder_scan.h.
    """
    def __len__(self) -> int:
        ...
    @property
    def direct_alignments(self) -> numpy.typing.NDArray[numpy.int64]:
        ...
    @property
    def path_ends(self) -> numpy.typing.NDArray[numpy.uint64]:
        ...
    @property
    def paths(self) -> numpy.typing.NDArray[numpy.uint8]:
        ...
    @property
    def versions(self) -> numpy.typing.NDArray[numpy.uint64]:
        """
        4 numbers of each: device, inode, size in bytes, time of change in ns.
        """
class NpyHeads:
    """
    Headers of .npy files in columns.
    """
    @property
    def axes(self) -> numpy.typing.NDArray[numpy.int64]:
        """
        How many.
        """
    @property
    def header_bytes(self) -> numpy.typing.NDArray[numpy.int64]:
        ...
    @property
    def shapes(self) -> numpy.typing.NDArray[numpy.int64]:
        """
        [n, 64]; 1 behind the last axis.
        """
    @property
    def type_names(self) -> list[bytes]:
        ...
    @property
    def types(self) -> numpy.typing.NDArray[numpy.int64]:
        """
        Numbers of names of types; -1: it is a header that only format/npy.py reads.
        """
class SampleNames:
    """
    See csrc/format/member_names.h.
    """
    @property
    def extension_of(self) -> numpy.typing.NDArray[numpy.int64]:
        ...
    @property
    def extensions(self) -> list[bytes]:
        ...
    @property
    def key_ends(self) -> numpy.typing.NDArray[numpy.int64]:
        ...
    @property
    def keys(self) -> numpy.typing.NDArray[numpy.uint8]:
        ...
    @property
    def sample_of(self) -> numpy.typing.NDArray[numpy.int64]:
        ...
class TarMembers:
    """
    The files of a tar archive: see csrc/format/tar_members.h.
    """
    def __len__(self) -> int:
        ...
    def group(self, *, path: os.PathLike | str | bytes, most_extensions: typing.SupportsInt | typing.SupportsIndex) -> SampleNames:
        """
        Its samples; `path` is for errors.
        """
    @property
    def has_end(self) -> bool:
        ...
    @property
    def name_ends(self) -> numpy.typing.NDArray[numpy.int64]:
        ...
    @property
    def names(self) -> numpy.typing.NDArray[numpy.uint8]:
        ...
    @property
    def offsets(self) -> numpy.typing.NDArray[numpy.int64]:
        ...
    @property
    def sizes(self) -> numpy.typing.NDArray[numpy.int64]:
        ...
def available_memory_bytes(*, with_swap: bool = False) -> int:
    """
    What this process can still allocate, cgroup limits included, in bytes.
    """
def available_processors() -> int:
    """
    Processors that this process may use, quotas of cgroups included.
    """
def batch_sizes(*, form: BatchForm, order: RecordOrder, batch_records: typing.SupportsInt | typing.SupportsIndex, num_batches: typing.SupportsInt | typing.SupportsIndex) -> list[int]:
    """
    Bytes of a buffer that batches of the order need: of so many, evenly spread over the first epoch, or of as many epochs as have so many.
    """
def benchmark_allocate_free(size_bytes: typing.SupportsInt | typing.SupportsIndex, *, alignment: typing.SupportsInt | typing.SupportsIndex, rounds: typing.SupportsInt | typing.SupportsIndex, held: typing.SupportsInt | typing.SupportsIndex = 1) -> None:
    """
    Allocates, touches and frees buffers, `held` of them at a time. For benchmarks.
    """
def benchmark_take_give(pool: BufferPool, *, rounds: typing.SupportsInt | typing.SupportsIndex, held: typing.SupportsInt | typing.SupportsIndex = 1) -> None:
    """
    Takes, touches and gives buffers, `held` of them at a time. For benchmarks.
    """
def changed_folder(*, paths: typing_extensions.Buffer, path_ends: typing_extensions.Buffer, modified_ns: typing.Annotated[numpy.typing.ArrayLike, numpy.int64], threads: typing.SupportsInt | typing.SupportsIndex) -> int:
    """
    The first folder that has another time of change, or is gone; -1: none.
    """
def check_sequences(*, lengths: typing_extensions.Buffer, offsets: typing_extensions.Buffer, token_bytes: typing.SupportsInt | typing.SupportsIndex) -> SequenceCheck:
    """
    lengths: uint32 [n], tokens; offsets: uint64 [n], bytes.
    """
def common_folder_bytes(*, paths: typing_extensions.Buffer, path_ends: typing_extensions.Buffer) -> int:
    """
    How much of all paths is the folder that holds all of them.
    """
def count_repeated(*, paths: typing_extensions.Buffer, path_ends: typing_extensions.Buffer, left_out: typing.Annotated[numpy.typing.ArrayLike, numpy.int64]) -> int:
    """
    How many paths are the same as one before them, without so many of their first bytes.
    """
def counts_up(numbers: typing_extensions.Buffer) -> bool:
    """
    Whether uint64 [n] are 0, 1, 2, ...
    """
def crc32c(data: typing_extensions.Buffer, crc: typing.SupportsInt | typing.SupportsIndex = 0) -> int:
    """
    The CRC-32C of contiguous bytes, or of those that `crc` is of, followed by them.
    """
def crc32c_method() -> str:
    """
    'sse4.2', 'armv8' or 'tables'.
    """
def deferred_releases() -> int:
    ...
def derive_key(seed: typing.SupportsInt | typing.SupportsIndex, path: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> int:
    """
    64 bits for each path of numbers under a seed; a path begins with its purpose.
    """
def direct_alignment(path: os.PathLike | str | bytes, direct: str) -> int:
    """
    Opens the file: the alignment of its direct reads, or 0 where the file system refuses them.
    """
def file_system_config(name: str) -> dict[str, typing.Any]:
    """
    Fields of a ready-made FileSystemConfig: 'default', 'direct_io', 'high_performance'.
    """
def fixed_credentials(*, access_key: str, secret_key: str, session_token: str) -> CredentialSource:
    """
    Always the same; without an access key requests are not signed.
    """
def folder_labels(*, paths: typing_extensions.Buffer, path_ends: typing_extensions.Buffer, name_bytes: typing.Annotated[numpy.typing.ArrayLike, numpy.int64], is_parent: bool) -> tuple[numpy.typing.NDArray[numpy.int64], list[bytes]]:
    """
    (label of each file, names of the classes): by the first folder of its name, or by the folder that it lies in.
    """
def handover_events() -> int:
    """
    Counts up when a segment is mapped, and when the first batch is copied out.
    """
def inspect_files(paths: collections.abc.Sequence[os.PathLike | str | bytes]) -> list[tuple[tuple[int, int, int, int], int]]:
    """
    For each path (what its ObjectVersion is made of, the alignment of direct reads or 0).
    """
def inspect_paths(*, paths: bytes, current: os.PathLike | str | bytes, threads: typing.SupportsInt | typing.SupportsIndex, progress: collections.abc.Callable[[int], None] | None) -> FoundFiles:
    """
    Files whose paths follow each other, a NUL between two of them; relative ones are below `current`. `progress` gets the number of those that are done.
    """
def json_lines(*, paths: typing_extensions.Buffer, path_ends: typing_extensions.Buffer, left_out: typing.Annotated[numpy.typing.ArrayLike, numpy.int64], first: typing.SupportsInt | typing.SupportsIndex, last: typing.SupportsInt | typing.SupportsIndex) -> bytes:
    """
    Of some paths, without so many of their first bytes: a line of JSON for each.
    """
def kept_checksum(path: os.PathLike | str | bytes) -> int | None:
    """
    The checksum that a file keeps of its content, if it does.
    """
def mapped_files() -> int:
    """
    How many such tensors are mapped now.
    """
def measure_reads(path: os.PathLike | str | bytes, *, block_bytes: typing.SupportsInt | typing.SupportsIndex, depth: typing.SupportsInt | typing.SupportsIndex, seconds: typing.SupportsFloat | typing.SupportsIndex, sequential: bool = False, engine: str = 'auto', direct: str = 'require', seed: typing.SupportsInt | typing.SupportsIndex = 0, memory_bytes: typing.SupportsInt | typing.SupportsIndex = 0) -> dict[str, typing.Any]:
    """
    Reads blocks at a constant depth for a while, as the reader does. For benchmarks.
    """
def memory_limit_bytes() -> int | None:
    """
    The smallest memory limit of this process's cgroups, or None.
    """
def open_shared(*, fd: typing.SupportsInt | typing.SupportsIndex, offset: typing.SupportsInt | typing.SupportsIndex, length: typing.SupportsInt | typing.SupportsIndex) -> tuple[typing.Any, bool]:
    """
    A uint8 tensor over memory that another process shares, and whether it is mapped (else it is a copy).
    """
def parse_npy_heads(*, data: typing.Annotated[numpy.typing.ArrayLike, numpy.uint8], begins: typing.Annotated[numpy.typing.ArrayLike, numpy.int64], ends: typing.Annotated[numpy.typing.ArrayLike, numpy.int64]) -> NpyHeads:
    """
    Of heads of files, [n, length]: from each one's beginning to its end there.
    """
def pending_releases() -> int:
    ...
def read_heads(*, paths: typing_extensions.Buffer, path_ends: typing_extensions.Buffer, offsets: typing.Annotated[numpy.typing.ArrayLike, numpy.int64], length: typing.SupportsInt | typing.SupportsIndex, threads: typing.SupportsInt | typing.SupportsIndex) -> tuple[numpy.typing.NDArray[numpy.uint8], numpy.typing.NDArray[numpy.int64]]:
    """
    (`length` bytes of each file from its offset on, [n, length]; how many there were).
    """
def receive_tensor(sent: bytes) -> typing.Any:
    ...
def refused_calls() -> list[tuple[str, int]]:
    """
    System calls with a substitute that fail as under a filter (seccomp), and their errno.
    """
def remove_abandoned(folder: os.PathLike | str | bytes) -> None:
    """
    Removes the temporary files of dead writers.
    """
def s3_abort_upload(objects: S3Objects, path: os.PathLike | str | bytes, id: os.PathLike | str | bytes, *, timeout_s: typing.SupportsFloat | typing.SupportsIndex) -> None:
    """
    Nothing happens where there is no such upload.
    """
def s3_put(objects: S3Objects, path: os.PathLike | str | bytes, data: typing_extensions.Buffer, *, if_absent: bool, checksums: bool, headers: collections.abc.Sequence[tuple[str, str]]) -> tuple[int, int | None, bool]:
    """
    (size in bytes, CRC-32C, False) of the object that contiguous bytes become.
    """
def s3_remove(objects: S3Objects, path: os.PathLike | str | bytes, *, timeout_s: typing.SupportsFloat | typing.SupportsIndex) -> None:
    """
    Nothing happens where there is none.
    """
def s3_uploads(objects: S3Objects, prefix: os.PathLike | str | bytes) -> list[tuple[str, str, int | None]]:
    """
    (path, id, age in s) of uploads in parts that nobody has finished, sorted. The age is None where the server does not say what time it is.
    """
def s3_version(*, size_bytes: typing.SupportsInt | typing.SupportsIndex, etag: str) -> tuple[int, int, int, int]:
    """
    (device, inode, size in bytes, modified_ns) of an ObjectVersion.
    """
def s3_writer(objects: S3Objects, path: os.PathLike | str | bytes, *, size_bytes: typing.SupportsInt | typing.SupportsIndex | None, if_absent: bool, checksums: bool, headers: collections.abc.Sequence[tuple[str, str]]) -> ObjectWriter:
    """
    An object of S3 to write in chunks. headers: (name, value) of the object.
    """
def scan_folder(*, folder: os.PathLike | str | bytes, pattern: os.PathLike | str | bytes, threads: typing.SupportsInt | typing.SupportsIndex, settles: bool, progress: collections.abc.Callable[[int, int], None] | None) -> tuple[FoundFiles, FoundFiles]:
    """
    (the files below the folder that the pattern means, the folders that were listed). `progress` gets the number of both so far.
    """
def scan_tars(*, store: Store, paths: collections.abc.Sequence[os.PathLike | str | bytes], versions: collections.abc.Sequence[ObjectVersion] | None, depth: typing.SupportsInt | typing.SupportsIndex, read_timeout_s: typing.SupportsFloat | typing.SupportsIndex, progress: collections.abc.Callable[[int, int], None] | None) -> tuple[list[TarMembers], int, int]:
    """
    (the members of each archive, reads, bytes read). `progress` gets the number of archives that are done, and bytes that are passed.
    """
def send_tensor(tensor: typing.Any) -> typing.Any:
    """
    Bytes from which the consuming process makes the same tensor, or None.
    """
def shared_storage(tensor: typing.Any) -> tuple[int, int, int] | None:
    """
    (fd, offset, bytes) of a tensor's storage, where another process can map it, or None.
    """
def sum_lengths(lengths: typing_extensions.Buffer) -> LengthSum:
    """
    Of uint32 or uint64 [n].
    """
def take_back_tensor(sent: bytes) -> None:
    """
    For bytes of send_tensor that did not leave this process.
    """
def uring_unavailable_reason() -> str:
    """
    Empty if io_uring works here, else the reason why not.
    """
MOST_DOCUMENTS_IN_BLOCK: int = 65536
NUMBERS_OF_TOKEN_PART: int = 281474976710656
PURPOSE_AUGMENTATION: int = 5
PURPOSE_SPLIT: int = 4
__version__: str = '0.1.0'
built_with_s3: bool = True
built_with_uring: bool = True

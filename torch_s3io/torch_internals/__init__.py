"""All that reaches behind the public API of torch, and of frameworks that build on it.

A module here knows what torch knows, and nothing of our data sets: what follows lies elsewhere.
The public way is taken where there is one. All of it is needed from torch 2.4 to 2.13, unless it
says otherwise. A name that is missing is "not known": nothing is noticed then, and what happens is
said below. ``tests/test_torch_internals.py`` fails where what is installed lacks one.

======================  ============================================================================
module                  what it reaches into; why; where that is not known; who speaks of it
======================  ============================================================================
``worker_starts``       The frames in which torch's loader starts a process. Workers are told where
                        their passes begin, and batches find their way without a copy.
                        Not known: a worker that is late may read the next pass.
                        https://github.com/pytorch/pytorch/issues/97326
``worker_reads``        The frames of torch's and torchdata's fetcher and worker loop. A data set
                        that a worker reads for something else is not shared out among workers.
                        Not known: each worker reads its share of it.
                        No issue known.
``collation``           The fetcher that calls ``iter(dataset)``, the loader that calls ``len()``,
                        their ``collate_fn``. Batches are not stacked once more, and transformers
                        gets the samples that it makes batches of.
                        Not known: batches of batches.
                        No issue known.
``map_style``           Who asks for the class or the length of a data set. The error says what to
                        call instead.
                        Not known: torch's own error, or a later one (``random_split``).
                        No issue known. https://github.com/pytorch/pytorch/pull/19228 made torch's.
``loader_workers``      ``_iterator`` of a loader; ``_dataset_fetcher``, ``_workers``,
                        ``_shutdown_workers()``, ``_index_queues``, ``_data_queue`` of its iterator.
                        Killed workers are replaced, workers end after Ctrl-C, and the loader knows
                        its place.
                        Not known: none of that.
                        https://github.com/pytorch/pytorch/issues/36650
                        https://github.com/pytorch/pytorch/issues/64766
                        https://github.com/pytorch/pytorch/issues/71383
                        https://github.com/pytorch/pytorch/issues/22924
``lost_tensors``        ``_process_data()`` of torch's and torchdata's iterators, wrapped once a
                        tensor was lost; ``ExceptionWrapper``. ``next()`` raises, and the loader
                        goes on.
                        Not known: the first use of the tensor raises.
                        https://github.com/pytorch/pytorch/issues/28950
``unsent_batches``      ``_target`` and ``_args`` of a worker's process; ``_on_queue_feeder_error``,
                        ``_buffer``, ``_sem`` and ``_notempty`` of Python's queues;
                        ``ExceptionWrapper``. ``next()`` raises where a batch cannot be pickled.
                        Not known, or a data set that a worker begins to read late: the loop waits
                        for it, or does without it.
                        https://github.com/pytorch/pytorch/issues/142884
``shared_storage``      ``torch.multiprocessing.reductions``. A loop that keeps batches does not run
                        out of descriptors.
                        Not known: torch_s3io cannot be imported.
                        https://github.com/pytorch/pytorch/issues/973
                        https://github.com/pytorch/pytorch/issues/11201
``pinning``             ``_pin_memory_loop()``. Batches are page-locked where they lie.
                        Not known: torch copies them.
                        https://github.com/pytorch/pytorch/issues/78018
``process_groups``      ``_get_default_store()``. Ranks that wait for one that never comes say which
                        it is.
                        Not known: they wait as long as the process group does.
                        torch 2.13 has ``ProcessGroup.get_group_store()``, 2.8 has not.
                        https://github.com/pytorch/pytorch/issues/151960
``batch_types``         ``torch.utils._pytree`` and ``default_collate_fn_map``. A ``Ragged`` is no
                        leaf, and stacking it is an error that says what to do.
                        Not known: it is a leaf, and torch's own error.
                        https://github.com/pytorch/pytorch/issues/65761
                        https://github.com/pytorch/pytorch/issues/97498
``accelerate``          The frames of accelerate's loaders and of transformers' Trainer. What they
                        share out is read whole; what they skip is of the epoch that they mean.
                        Not known: every rank gets a share of its share; what is skipped may be of
                        another epoch.
                        https://github.com/huggingface/accelerate/issues/3547
                        https://github.com/huggingface/accelerate/issues/4199
                        https://github.com/huggingface/accelerate/issues/2016
                        https://github.com/huggingface/accelerate/issues/2823
``lightning``           The frames and attributes of Lightning's ``_FitLoop``, which keeps states of
                        loaders from 2.2 on. A loader resumes also where it does not load them.
                        Not known: it does not.
                        https://github.com/Lightning-AI/pytorch-lightning/issues/20550
======================  ============================================================================

A fault of torch is worked around in a public way, in ``processes/handover.py``: workers under
forkserver that outlive the main process (https://github.com/pytorch/pytorch/pull/6606).
"""

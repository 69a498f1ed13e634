"""What goes on between processes: ranks, batches from workers, their end."""
